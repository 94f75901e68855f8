// MobileNetV2 with the keys of torchvision.
//
// Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.

#include "compress/zoo/architecture.h"

#include <cstdint>

namespace compress::zoo {
namespace {

struct Stage {
  int64_t expansion, channels, blocks, stride;
};
constexpr Stage kStages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                             {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};

// Convolution, batch norm and ReLU6, which torchvision numbers 0, 1, 2.
Value* conv_norm_relu6(GraphBuilder& net, Value* x, const std::string& name, int64_t in,
                       int64_t out, ConvOptions options) {
  const auto module = net.scope(name);
  x = net.batch_norm(net.conv(x, "0", in, out, options), "1", out);
  return net.call("aten::hardtanh", {x, 0.0, 6.0});
}

Value* inverted_residual(GraphBuilder& net, Value* x, int64_t in, const Stage& stage,
                         int64_t stride) {
  const auto module = net.scope("conv");
  const int64_t hidden = in * stage.expansion;
  Value* y = x;
  int64_t index = 0;
  if (stage.expansion != 1) {
    y = conv_norm_relu6(net, y, std::to_string(index++), in, hidden, {.kernel = 1});
  }
  y = conv_norm_relu6(net, y, std::to_string(index++), hidden, hidden,
                      {.stride = stride, .padding = 1, .groups = hidden});
  y = net.conv(y, std::to_string(index++), hidden, stage.channels, {.kernel = 1});
  y = net.batch_norm(y, std::to_string(index), stage.channels);
  return stride == 1 && in == stage.channels ? net.add(x, y) : y;
}

std::vector<Output> build_mobilenet_v2(GraphBuilder& net, const Parameters& parameters) {
  constexpr int64_t kLastChannels = 1280;
  Value* x = net.input("x", c10::kFloat, {Dim("batch", 2), 3, 224, 224});
  {
    const auto module = net.scope("features");
    x = conv_norm_relu6(net, x, "0", 3, 32, {.stride = 2, .padding = 1});
    int64_t index = 1, channels = 32;
    for (const Stage& stage : kStages) {
      for (int64_t block = 0; block < stage.blocks; ++block) {
        const auto inner = net.scope(index++);
        x = inverted_residual(net, x, channels, stage, block == 0 ? stage.stride : 1);
        channels = stage.channels;
      }
    }
    x = conv_norm_relu6(net, x, std::to_string(index), channels, kLastChannels, {.kernel = 1});
  }
  x = net.global_average(x);
  const auto module = net.scope("classifier");
  x = net.dropout(x, 0.2);
  return {{"output", net.linear(x, "1", kLastChannels, parameters["classes"])}};
}

}  // namespace

Family mobilenet_v2() {
  return {build_mobilenet_v2,
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("classes", shapes.dim("classifier.1.weight", 0));
          },
          {{"torchvision", {}}}};
}

}  // namespace compress::zoo
