// VGG with batch norm for 32x32 images.
//
// Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
// ICLR 2015, configurations A, B, D, E. On CIFAR most repositories end in one linear layer
// (kuangliu/pytorch-cifar), some in three of 512 (chenyaofo/pytorch-cifar-models).

#include "compress/zoo/architecture.h"

#include <cstdint>

namespace compress::zoo {
namespace {

// Convolutions in each of the five stages; a 2x2 max pool ends a stage.
std::vector<int64_t> convolutions(int64_t depth) {
  switch (depth) {
    case 11:
      return {1, 1, 2, 2, 2};
    case 13:
      return {2, 2, 2, 2, 2};
    case 16:
      return {2, 2, 3, 3, 3};
    default:
      return {2, 2, 4, 4, 4};
  }
}

Value* features(GraphBuilder& net, int64_t depth) {
  const auto module = net.scope("features");
  Value* x = net.input("x", c10::kFloat, {Dim("batch", 2), 3, 32, 32});
  int64_t index = 0, in = 3, out = 64;
  for (const int64_t count : convolutions(depth)) {
    for (int64_t i = 0; i < count; ++i) {
      x = net.conv(x, std::to_string(index), in, out, {.padding = 1, .bias = true});
      x = net.relu(net.batch_norm(x, std::to_string(index + 1), out));
      index += 3;
      in = out;
    }
    x = net.max_pool(x, 2, 2);
    ++index;
    if (out < 512) out *= 2;
  }
  return net.flatten(x);
}

std::vector<Output> build_vgg(GraphBuilder& net, const Parameters& parameters) {
  Value* x = features(net, parameters["depth"]);
  return {{"output", net.linear(x, "classifier", 512, parameters["classes"])}};
}

std::vector<Output> build_three_linear(GraphBuilder& net, const Parameters& parameters) {
  Value* x = features(net, parameters["depth"]);
  const auto module = net.scope("classifier");
  x = net.dropout(net.relu(net.linear(x, "0", 512, 512)), 0.5);
  x = net.dropout(net.relu(net.linear(x, "3", 512, 512)), 0.5);
  return {{"output", net.linear(x, "6", 512, parameters["classes"])}};
}

}  // namespace

Family vgg() {
  return {build_vgg,
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("classes", shapes.dim("classifier.weight", 0));
          },
          {{"kuangliu", {}}}};
}

Family vgg_three_linear() {
  return {build_three_linear,
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("classes", shapes.dim("classifier.6.weight", 0));
          },
          {{"chenyaofo", {}}}};
}

}  // namespace compress::zoo
