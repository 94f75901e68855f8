// ResNets for 32x32 images with 6n+2 layers.
//
// He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2. Option A skips
// every second pixel and pads the new channels with zeros, so the shortcut has no weights; option B
// is a 1x1 convolution with batch norm.

#include "compress/zoo/architecture.h"

#include <cstdint>
#include <limits>

namespace compress::zoo {
namespace {

Value* zero_padded_shortcut(GraphBuilder& net, Value* x, int64_t new_channels) {
  constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
  for (const int64_t dim : {2, 3}) x = net.call("aten::slice.Tensor", {x, dim, 0, kEnd, 2});
  const std::vector<int64_t> padding = {0, 0, 0, 0, new_channels / 2, new_channels / 2};
  return net.call("aten::pad", {x, padding, "constant", 0.0});
}

Value* basic_block(GraphBuilder& net, Value* x, int64_t in, int64_t out, int64_t stride,
                   bool option_a) {
  Value* y = net.conv(x, "conv1", in, out, {.stride = stride, .padding = 1});
  y = net.relu(net.batch_norm(y, "bn1", out));
  y = net.conv(y, "conv2", out, out, {.padding = 1});
  y = net.batch_norm(y, "bn2", out);
  if (in != out && option_a) x = zero_padded_shortcut(net, x, out - in);
  if (in != out && !option_a) {
    const auto module = net.scope("downsample");
    x = net.conv(x, "0", in, out, {.kernel = 1, .stride = stride});
    x = net.batch_norm(x, "1", out);
  }
  return net.relu(net.add(y, x));
}

std::vector<Output> build_cifar_resnet(GraphBuilder& net, const Parameters& parameters,
                                       bool option_a) {
  const int64_t blocks = (parameters["depth"] - 2) / 6;
  Value* x = net.input("x", c10::kFloat, {Dim("batch", 2), 3, 32, 32});
  x = net.relu(net.batch_norm(net.conv(x, "conv1", 3, 16, {.padding = 1}), "bn1", 16));
  int64_t channels = 16;
  for (int64_t stage = 0; stage < 3; ++stage) {
    const auto layer = net.scope("layer" + std::to_string(stage + 1));
    for (int64_t index = 0; index < blocks; ++index) {
      const auto module = net.scope(index);
      const int64_t out = int64_t{16} << stage;
      x = basic_block(net, x, channels, out, channels == out ? 1 : 2, option_a);
      channels = out;
    }
  }
  const char* classifier = option_a ? "linear" : "fc";
  x = net.linear(net.global_average(x), classifier, channels, parameters["classes"]);
  return {{"output", x}};
}

}  // namespace

Family cifar_resnet_a() {
  return {[](GraphBuilder& net, const Parameters& parameters) {
            return build_cifar_resnet(net, parameters, /*option_a=*/true);
          },
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("classes", shapes.dim("linear.weight", 0));
          },
          {{"akamaster", {}}, {"fc", {{"linear.", "fc."}}}}};
}

Family cifar_resnet_b() {
  return {[](GraphBuilder& net, const Parameters& parameters) {
            return build_cifar_resnet(net, parameters, /*option_a=*/false);
          },
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("classes", shapes.dim("fc.weight", 0));
          },
          {{"distiller", {}}, {"akamaster", {{"downsample.", "shortcut."}, {"fc.", "linear."}}}}};
}

}  // namespace compress::zoo
