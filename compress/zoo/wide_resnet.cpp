// Wide residual networks for 32x32 images, with the keys of xternalz/WideResNet-pytorch.
//
// Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016: pre-activation blocks, 6n+4 layers.

#include "compress/zoo/architecture.h"

#include <cstdint>

namespace compress::zoo {
namespace {

Value* wide_block(GraphBuilder& net, Value* x, int64_t in, int64_t out, int64_t stride) {
  Value* active = net.relu(net.batch_norm(x, "bn1", in));
  Value* y = net.conv(active, "conv1", in, out, {.stride = stride, .padding = 1});
  y = net.relu(net.batch_norm(y, "bn2", out));
  y = net.conv(y, "conv2", out, out, {.padding = 1});
  // Where the width changes, the shortcut starts after the common batch norm and ReLU.
  if (in != out) x = net.conv(active, "convShortcut", in, out, {.kernel = 1, .stride = stride});
  return net.add(x, y);
}

std::vector<Output> build_wide_resnet(GraphBuilder& net, const Parameters& parameters) {
  const int64_t blocks = (parameters["depth"] - 4) / 6;
  Value* x = net.input("x", c10::kFloat, {Dim("batch", 2), 3, 32, 32});
  int64_t channels = 16;
  x = net.conv(x, "conv1", 3, channels, {.padding = 1});
  for (int64_t stage = 0; stage < 3; ++stage) {
    const auto module = net.scope("block" + std::to_string(stage + 1) + ".layer");
    const int64_t out = (int64_t{16} << stage) * parameters["widen"];
    for (int64_t index = 0; index < blocks; ++index) {
      const auto layer = net.scope(index);
      x = wide_block(net, x, channels, out, stage > 0 && index == 0 ? 2 : 1);
      channels = out;
    }
  }
  x = net.relu(net.batch_norm(x, "bn1", channels));
  x = net.flatten(net.avg_pool(x, 8));
  return {{"output", net.linear(x, "fc", channels, parameters["classes"])}};
}

void infer_wide_resnet(const Shapes& shapes, Parameters& parameters) {
  parameters.set("classes", shapes.dim("fc.weight", 0));
  if (const auto blocks = shapes.count("block1.layer.", ".conv1.weight")) {
    parameters.set("depth", *blocks * 6 + 4);
  }
  if (const auto width = shapes.dim("block1.layer.0.conv1.weight", 0)) {
    parameters.set("widen", *width / 16);
  }
}

}  // namespace

Family wide_resnet() { return {build_wide_resnet, infer_wide_resnet, {{"xternalz", {}}}}; }

}  // namespace compress::zoo
