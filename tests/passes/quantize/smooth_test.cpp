// Tests of passes/quantize/smooth.

#include "compress/graph/shapes.h"
#include "compress/zoo/zoo.h"
#include "passes/quantize/smooth_scales.h"
#include "tests/support/pass_test.h"

#include <cmath>

namespace compress::testing {
namespace {

TEST(SmoothScales, AreTheGoldenOnes) {
  const at::Tensor scales =
      smooth_scales(at::tensor({60.0, 2.0, .5}), at::tensor({.3, .4, .5}), .5);
  EXPECT_TRUE(at::allclose(scales, at::tensor({14.142136, 2.236068, 1.0}, at::kDouble), 1e-7, 0));
}

TEST(SmoothScales, LeaveDeadChannelsAlone) {
  const at::Tensor scales =
      smooth_scales(at::tensor({0.0, 2.0, 3.0}), at::tensor({.3, 0.0, 3.0}), .5);
  EXPECT_TRUE(at::equal(scales, at::ones({3}, at::kDouble)));
}

// Half of one per cent of the channels are fifty times as large as the others.
Model network_with_outliers() {
  Model model = parse_filled(R"(
input x : f32[64,256]
parameter ln.weight : f32[256]
parameter ln.bias : f32[256]
parameter fc.weight : f32[128,256]
n = aten::layer_norm(x, [256], ln.weight, ln.bias) @ ln
y = aten::linear(n, fc.weight) @ fc
return y = y
)");
  propagate_shapes(model);
  model.set_tensor("ln.weight", at::ones({256}).index_fill(0, at::tensor({3, 77}, at::kLong), 50));
  model.set_tensor("ln.bias", at::zeros({256}));
  return model;
}

RunOptions calibrated(const at::Tensor& x) {
  RunOptions options;
  options.calibration = [x](const auto& take) { take({x}); };
  return options;
}

at::Tensor eight_bits(const at::Tensor& x, const at::Tensor& most) {
  return (x / (most / 127)).round().clamp(-127, 127) * (most / 127);
}

// Relative error of the layer with weights by channel and activations by tensor, both in 8 bits.
double quantized_error(const Model& model, const at::Tensor& x) {
  const at::Tensor n = at::layer_norm(x, {256}, model.tensor("ln.weight"), model.tensor("ln.bias"));
  const at::Tensor w = model.tensor("fc.weight");
  const at::Tensor exact = at::linear(n, w);
  const at::Tensor rough =
      at::linear(eight_bits(n, n.abs().max()), eight_bits(w, w.abs().amax(1, true)));
  return ((rough - exact).norm() / exact.norm()).item<double>();
}

TEST(QuantizeSmooth, MakesEightBitsEnoughForActivationsWithOutliers) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({64, 256});
  Model model = network_with_outliers();
  const double before = quantized_error(model, x);
  const RunResult result = run_passes("quantize.smooth", model, calibrated(x));
  EXPECT_EQ(result.steps.at(0).counts.at("groups_scaled"), 1);
  EXPECT_LT(quantized_error(model, x), before / 2);
}

TEST(QuantizeSmooth, BalancesRangesAtOneHalf) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({64, 256});
  Model model = network_with_outliers();
  run_passes("quantize.smooth{alpha=0.5}", model, calibrated(x));
  const at::Tensor n = at::layer_norm(x, {256}, model.tensor("ln.weight"), model.tensor("ln.bias"));
  EXPECT_TRUE(at::allclose(n.abs().amax(0), model.tensor("fc.weight").abs().amax(0), 1e-4, 0));
}

TEST(QuantizeSmooth, KeepsTheOutputsOfAGpt) {
  Model model = zoo::build("nanogpt{layers=2,width=64,heads=2,context=16,vocabulary=11,bias=1}");
  at::manual_seed(3);
  for (const NamedTensor& named : model.tensors()) {
    if (named.name.find("ln_") == std::string::npos) continue;
    model.set_tensor(named.name, named.tensor + at::randn(named.tensor.sizes()).exp());
  }
  const at::Tensor tokens = at::randint(11, {4, 16}), before = model.forward({tokens})[0];
  const RunResult result = run_passes("quantize.smooth{alpha=0.8}", model, calibrated(tokens));
  EXPECT_EQ(result.steps.at(0).counts.at("groups_scaled"), 4);
  const at::Tensor after = model.forward({tokens})[0];
  EXPECT_LT((after - before).abs().max().item<double>(), 1e-5 * before.abs().max().item<double>());
  const auto& messages = result.steps.at(0).messages;
  EXPECT_THAT(messages, ::testing::Contains(HasSubstr("wte.weight is used elsewhere")));
  EXPECT_THAT(messages,
              ::testing::Contains(HasSubstr("h.0.mlp.c_proj.weight: left alone, no norm")));
}

TEST(QuantizeSmooth, RefusesToRunWithoutData) {
  Model model = network_with_outliers();
  EXPECT_THAT(refusal("quantize.smooth", model), HasSubstr("needs calibration data"));
}

}  // namespace
}  // namespace compress::testing
