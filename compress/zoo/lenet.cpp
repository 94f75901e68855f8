// LeNets for 28x28 grey images.
//
// LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 1998. The
// pruning literature (Han et al. 2015) means by LeNet-5 the wider one of Caffe's examples
// (20-50-500-10, 431k parameters) and by LeNet-300-100 the multilayer perceptron.

#include "compress/zoo/architecture.h"

#include <cstdint>

namespace compress::zoo {
namespace {

Value* image(GraphBuilder& net) {
  return net.input("x", c10::kFloat, {Dim("batch", 2), 1, 28, 28});
}

// Side of the map after both 5x5 convolutions and 2x2 pools of a 28x28 image.
int64_t last_side(int64_t padding) { return ((28 + 2 * padding - 4) / 2 - 4) / 2; }

std::vector<Output> build_lenet5(GraphBuilder& net, const Parameters& parameters) {
  const int64_t padding = parameters["padding"], side = last_side(padding);
  Value* x = net.conv(image(net), "conv1", 1, 6, {.kernel = 5, .padding = padding, .bias = true});
  x = net.max_pool(net.relu(x), 2, 2);
  x = net.conv(x, "conv2", 6, 16, {.kernel = 5, .bias = true});
  x = net.flatten(net.max_pool(net.relu(x), 2, 2));
  x = net.relu(net.linear(x, "fc1", 16 * side * side, 120));
  x = net.relu(net.linear(x, "fc2", 120, 84));
  return {{"output", net.linear(x, "fc3", 84, parameters["classes"])}};
}

// Caffe's example has no ReLU after the convolutions.
std::vector<Output> build_caffe(GraphBuilder& net, const Parameters& parameters) {
  const int64_t first = parameters["conv1"], second = parameters["conv2"];
  const int64_t hidden = parameters["hidden"], side = last_side(0);
  Value* x =
      net.max_pool(net.conv(image(net), "conv1", 1, first, {.kernel = 5, .bias = true}), 2, 2);
  x = net.max_pool(net.conv(x, "conv2", first, second, {.kernel = 5, .bias = true}), 2, 2);
  x = net.relu(net.linear(net.flatten(x), "fc1", second * side * side, hidden));
  return {{"output", net.linear(x, "fc2", hidden, parameters["classes"])}};
}

std::vector<Output> build_300_100(GraphBuilder& net, const Parameters& parameters) {
  const int64_t first = parameters["hidden1"], second = parameters["hidden2"];
  Value* x = net.flatten(image(net));
  x = net.relu(net.linear(x, "fc1", 28 * 28, first));
  x = net.relu(net.linear(x, "fc2", first, second));
  return {{"output", net.linear(x, "fc3", second, parameters["classes"])}};
}

// Caffe calls a linear layer an inner product.
Dialect caffe_names() { return {"caffe", {{"fc", "ip"}}}; }

}  // namespace

Family lenet5() {
  return {build_lenet5,
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("classes", shapes.dim("fc3.weight", 0));
            if (const auto in = shapes.dim("fc1.weight", 1)) {
              parameters.set("padding", *in == 16 * 5 * 5 ? int64_t{2} : int64_t{0});
            }
          },
          {{"pytorch-tutorial", {}}}};
}

Family lenet5_caffe() {
  return {build_caffe,
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("conv1", shapes.dim("conv1.weight", 0));
            parameters.set("conv2", shapes.dim("conv2.weight", 0));
            parameters.set("hidden", shapes.dim("fc1.weight", 0));
            parameters.set("classes", shapes.dim("fc2.weight", 0));
          },
          {{"fc", {}}, caffe_names()}};
}

Family lenet_300_100() {
  return {build_300_100,
          [](const Shapes& shapes, Parameters& parameters) {
            parameters.set("hidden1", shapes.dim("fc1.weight", 0));
            parameters.set("hidden2", shapes.dim("fc2.weight", 0));
            parameters.set("classes", shapes.dim("fc3.weight", 0));
          },
          {{"fc", {}}, caffe_names()}};
}

}  // namespace compress::zoo
