// What tests of reconstruction passes share: a network, data, and how far outputs are off.

#pragma once

#include "tests/support/pass_test.h"

namespace compress::testing {

/// Runs with these inputs as calibration data.
inline RunOptions calibrated_on(const at::Tensor& x) {
  RunOptions options;
  options.calibration = [x](const auto& take) {
    for (const at::Tensor& batch : x.split(48)) take({batch});
  };
  return options;
}

/// Images whose channels and neighbours go together, as those of a camera do: rounding errors add
/// up or cancel.
inline at::Tensor smooth_images(int64_t count = 96) {
  at::manual_seed(7);
  return at::avg_pool2d(at::randn({count, 1, 8, 8}), 3, 1) * 3 + at::randn({count, 4, 6, 6}) * 0.3;
}

/// A stem, a residual block, and a head.
inline Model residual_network() {
  return parse_filled(R"(
input x : f32[batch,4,6,6]
parameter stem.weight : f32[8,4,3,3]
parameter block.a.weight : f32[8,8,3,3]
parameter block.a.bias : f32[8]
parameter block.b.weight : f32[8,8,3,3]
parameter fc.weight : f32[16,8]
stem = aten::conv2d(x, stem.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ stem
in = aten::relu(stem) : f32[batch,8,6,6]
a = aten::conv2d(in, block.a.weight, block.a.bias, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ block.a
middle = aten::relu(a) : f32[batch,8,6,6]
b = aten::conv2d(middle, block.b.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ block.b
sum = aten::add.Tensor(b, in) : f32[batch,8,6,6]
out = aten::relu(sum) : f32[batch,8,6,6]
mean = aten::mean.dim(out, [2, 3]) : f32[batch,8]
logits = aten::linear(mean, fc.weight, none) : f32[batch,16] @ fc
return output = logits
)");
}

/// Squared difference of the outputs of two models, relative to the first one's.
inline double output_error(const Model& exact, const Model& rounded, const at::Tensor& x) {
  const at::Tensor wanted = exact.forward({x})[0];
  return (rounded.forward({x})[0] - wanted).square().sum().item<double>() /
         wanted.square().sum().item<double>();
}

/// Mean divergence of softened predictions, KL(exact || model), in double precision.
inline double divergence(const Model& exact, const Model& model, const at::Tensor& x,
                         double temperature) {
  const auto predictions = [&](const Model& of) {
    return at::log_softmax(of.forward({x})[0].to(at::kDouble) / temperature, -1);
  };
  const at::Tensor wanted = predictions(exact);
  return (wanted.exp() * (wanted - predictions(model))).sum().item<double>() / x.size(0);
}

/// How many nodes call the operator.
inline int64_t count_of(const Model& model, std::string_view op) {
  int64_t found = 0;
  for (const Node& node : model.graph().nodes()) found += node.op() == op;
  return found;
}

}  // namespace compress::testing
