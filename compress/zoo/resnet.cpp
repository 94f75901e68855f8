// ResNet-18, -34 and -50 for ImageNet with the keys of torchvision.
//
// He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; the stride of a bottleneck
// sits in its 3x3 convolution, as in torchvision.

#include "compress/zoo/architecture.h"

#include <cstdint>

namespace compress::zoo {
namespace {

constexpr int64_t kBottleneckExpansion = 4;

Value* main_path(GraphBuilder& net, Value* x, int64_t in, int64_t width, int64_t stride,
                 bool bottleneck) {
  if (!bottleneck) {
    x = net.conv(x, "conv1", in, width, {.stride = stride, .padding = 1});
    x = net.relu(net.batch_norm(x, "bn1", width));
    x = net.conv(x, "conv2", width, width, {.padding = 1});
    return net.batch_norm(x, "bn2", width);
  }
  const int64_t out = width * kBottleneckExpansion;
  x = net.relu(net.batch_norm(net.conv(x, "conv1", in, width, {.kernel = 1}), "bn1", width));
  x = net.conv(x, "conv2", width, width, {.stride = stride, .padding = 1});
  x = net.relu(net.batch_norm(x, "bn2", width));
  return net.batch_norm(net.conv(x, "conv3", width, out, {.kernel = 1}), "bn3", out);
}

std::vector<Output> build_resnet(GraphBuilder& net, const Parameters& parameters) {
  const int64_t depth = parameters["depth"];
  const bool bottleneck = depth == 50;
  const std::vector<int64_t> blocks =
      depth == 18 ? std::vector<int64_t>{2, 2, 2, 2} : std::vector<int64_t>{3, 4, 6, 3};
  Value* x = net.input("x", c10::kFloat, {Dim("batch", 2), 3, 224, 224});
  x = net.conv(x, "conv1", 3, 64, {.kernel = 7, .stride = 2, .padding = 3});
  x = net.relu(net.batch_norm(x, "bn1", 64));
  x = net.max_pool(x, 3, 2, 1);
  int64_t channels = 64;
  for (int64_t stage = 0; stage < 4; ++stage) {
    const auto layer = net.scope("layer" + std::to_string(stage + 1));
    const int64_t width = int64_t{64} << stage;
    const int64_t out = bottleneck ? width * kBottleneckExpansion : width;
    for (int64_t index = 0; index < blocks[stage]; ++index) {
      const auto module = net.scope(index);
      const int64_t stride = stage > 0 && index == 0 ? 2 : 1;
      Value* y = main_path(net, x, channels, width, stride, bottleneck);
      if (channels != out) {
        const auto shortcut = net.scope("downsample");
        x = net.conv(x, "0", channels, out, {.kernel = 1, .stride = stride});
        x = net.batch_norm(x, "1", out);
      }
      x = net.relu(net.add(y, x));
      channels = out;
    }
  }
  return {{"output", net.linear(net.global_average(x), "fc", channels, parameters["classes"])}};
}

}  // namespace

Family resnet() {
  return {build_resnet,
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("classes", shapes.dim("fc.weight", 0));
          },
          {{"torchvision", {}}}};
}

}  // namespace compress::zoo
