// DenseNets for 32x32 images, with and without bottlenecks, with the keys of
// andreasveit/densenet-pytorch.
//
// Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, section 3.

#include "compress/zoo/architecture.h"

#include <cstdint>

namespace compress::zoo {
namespace {

Value* dense_layer(GraphBuilder& net, Value* x, int64_t in, int64_t growth, bool bottleneck) {
  Value* y = net.relu(net.batch_norm(x, "bn1", in));
  if (bottleneck) {
    const int64_t inner = 4 * growth;
    y = net.conv(y, "conv1", in, inner, {.kernel = 1});
    y = net.relu(net.batch_norm(y, "bn2", inner));
    y = net.conv(y, "conv2", inner, growth, {.padding = 1});
  } else {
    y = net.conv(y, "conv1", in, growth, {.padding = 1});
  }
  return net.cat({x, y}, 1);
}

Value* transition(GraphBuilder& net, Value* x, int64_t in, int64_t out) {
  x = net.relu(net.batch_norm(x, "bn1", in));
  return net.avg_pool(net.conv(x, "conv1", in, out, {.kernel = 1}), 2);
}

std::vector<Output> build_densenet(GraphBuilder& net, const Parameters& parameters) {
  const int64_t growth = parameters["growth"];
  const bool bottleneck = parameters["bottleneck"] != 0;
  const int64_t layers = (parameters["depth"] - 4) / (bottleneck ? 6 : 3);
  Value* x = net.input("x", c10::kFloat, {Dim("batch", 2), 3, 32, 32});
  int64_t channels = 2 * growth;
  x = net.conv(x, "conv1", 3, channels, {.padding = 1});
  for (int64_t stage = 1; stage <= 3; ++stage) {
    {
      const auto block = net.scope("block" + std::to_string(stage) + ".layer");
      for (int64_t index = 0; index < layers; ++index) {
        const auto layer = net.scope(index);
        x = dense_layer(net, x, channels, growth, bottleneck);
        channels += growth;
      }
    }
    if (stage == 3) break;
    const auto module = net.scope("trans" + std::to_string(stage));
    const int64_t kept = parameters["halve"] != 0 ? channels / 2 : channels;
    x = transition(net, x, channels, kept);
    channels = kept;
  }
  x = net.relu(net.batch_norm(x, "bn1", channels));
  x = net.flatten(net.avg_pool(x, 8));
  return {{"output", net.linear(x, "fc", channels, parameters["classes"])}};
}

void infer_densenet(const Shapes& shapes, Parameters& parameters) {
  const bool bottleneck = shapes.contains("block1.layer.0.conv2.weight");
  parameters.set("classes", shapes.dim("fc.weight", 0));
  parameters.set(
      "growth",
      shapes.dim(bottleneck ? "block1.layer.0.conv2.weight" : "block1.layer.0.conv1.weight", 0));
  parameters.set("bottleneck", int64_t{bottleneck});
  if (const auto layers = shapes.count("block1.layer.", ".conv1.weight")) {
    parameters.set("depth", *layers * (bottleneck ? 6 : 3) + 4);
  }
  const auto out = shapes.dim("trans1.conv1.weight", 0);
  const auto in = shapes.dim("trans1.conv1.weight", 1);
  if (out && in) parameters.set("halve", int64_t{*out != *in});
}

}  // namespace

Family densenet() { return {build_densenet, infer_densenet, {{"andreasveit", {}}}}; }

}  // namespace compress::zoo
