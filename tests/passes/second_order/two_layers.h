// What tests of the second-order passes share: two layers, correlated inputs, how far outputs are
// off.

#pragma once

#include "tests/support/pass_test.h"

namespace compress::testing {

inline constexpr const char* kTwoLayers = R"(
input x : f32[batch,12]
parameter a.weight : f32[20,12]
parameter b.weight : f32[6,20]
a = aten::linear(x, a.weight) : f32[batch,20]
h = aten::relu(a) : f32[batch,20]
b = aten::linear(h, b.weight) : f32[batch,6]
return y = b
)";

/// Runs with these batches as calibration data.
inline RunOptions calibrated(at::TensorList batches) {
  RunOptions options;
  options.calibration = [batches = batches.vec()](const auto& take) {
    for (const at::Tensor& batch : batches) take({batch});
  };
  return options;
}

inline at::Tensor samples() {
  at::manual_seed(1);
  return at::randn({200, 12}).matmul(at::eye(12) + 0.4 * at::randn({12, 12}));
}

/// Mean squared difference of the outputs of two models on the samples.
inline double output_error(const Model& model, const Model& original) {
  const at::Tensor x = samples();
  return (model.forward({x})[0] - original.forward({x})[0]).square().mean().item<double>();
}

}  // namespace compress::testing
