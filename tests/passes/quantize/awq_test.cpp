// Tests of passes/quantize/awq.

#include "compress/graph/shapes.h"
#include "compress/zoo/zoo.h"
#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

Model network_with_outliers() {
  Model model = parse_filled(R"(
input x : f32[batch,64]
parameter ln.weight : f32[64]
parameter up.weight : f32[96,64]
parameter up.bias : f32[96]
parameter down.weight : f32[16,96]
n = aten::layer_norm(x, [64], ln.weight) @ ln
h = aten::linear(n, up.weight, up.bias) @ up
r = aten::relu(h)
y = aten::linear(r, down.weight) @ down
return y = y
)");
  propagate_shapes(model);
  model.set_tensor("ln.weight", at::ones({64}).index_fill(0, at::tensor({3, 17}, at::kLong), 20));
  return model;
}

RunOptions calibrated(const at::Tensor& x) {
  RunOptions options;
  options.calibration = [x](const auto& take) { take({x}); };
  return options;
}

double error_of(const std::string& line, const at::Tensor& calibration, const at::Tensor& x) {
  Model model = network_with_outliers();
  const at::Tensor exact = model.forward({x})[0];
  run_passes(line, model, calibrated(calibration));
  return ((model.forward({x})[0] - exact).norm() / exact.norm()).item<double>();
}

TEST(QuantizeAwq, BeatsRoundingOnInputsThatItHasNotSeen) {
  at::manual_seed(1);
  const at::Tensor calibration = at::randn({512, 64}), x = at::randn({512, 64});
  const double rounded =
      error_of("quantize.weights{bits=3,grid=affine,granularity=group:32}", calibration, x);
  const double clipped = error_of("quantize.awq{bits=3,group_size=32,steps=1}", calibration, x);
  const double scaled = error_of("quantize.awq{bits=3,group_size=32,clip=false}", calibration, x);
  const double both = error_of("quantize.awq{bits=3,group_size=32}", calibration, x);
  EXPECT_LT(clipped, rounded);
  EXPECT_LT(scaled, .8 * rounded);
  EXPECT_LT(both, 1.02 * scaled);
}

TEST(QuantizeAwq, SaysWhatItDid) {
  at::manual_seed(2);
  Model model = network_with_outliers();
  const RunResult result =
      run_passes("quantize.awq{bits=4,group_size=32}", model, calibrated(at::randn({256, 64})));
  EXPECT_EQ(weights(model)[0].encoding(), "uint4 group:32");
  EXPECT_GE(result.steps.at(0).counts.at("groups_scaled"), 1);
  EXPECT_EQ(result.steps.at(0).counts.at("weights_quantized"), 96 * 64 + 16 * 96);
}

TEST(QuantizeAwq, TakesAGptAndSaysWhatCannotBeScaled) {
  Model model = zoo::build("nanogpt{layers=1,width=64,heads=2,context=16,vocabulary=11}");
  const RunResult result =
      run_passes("quantize.awq{group_size=32}", model, calibrated(at::randint(11, {8, 16})));
  for (const Weight& weight : weights(model)) EXPECT_EQ(weight.encoding(), "uint4 group:32");
  EXPECT_THAT(result.steps.at(0).messages,
              ::testing::Contains(HasSubstr("c_proj.weight: not scaled, no norm or layer")));
}

TEST(QuantizeAwq, LeavesEmbeddingsAloneAndSaysSo) {
  Model model = parse_filled(R"(
input t : i64[2,3]
parameter table.weight : f32[11,64]
parameter fc.weight : f32[8,64]
x = aten::embedding(table.weight, t)
y = aten::linear(x, fc.weight)
return y = y
)");
  const RunResult result =
      run_passes("quantize.awq{group_size=32}", model, calibrated(at::ones({2, 3}, at::kLong)));
  EXPECT_EQ(weights(model)[0].encoding(), "f32");
  EXPECT_EQ(weights(model)[1].encoding(), "uint4 group:32");
  EXPECT_THAT(result.steps.at(0).messages,
              ::testing::Contains(HasSubstr("table.weight: left alone, its layer is no matrix")));
}

TEST(QuantizeAwq, TakesConvolutions) {
  Model model = zoo::build("resnet20-cifar10");
  at::manual_seed(3);
  const at::Tensor x = at::randn({4, 3, 32, 32}), exact = model.forward({x})[0];
  run_passes("quantize.awq{bits=8,steps=4}", model, calibrated(x));
  EXPECT_LT((model.forward({x})[0] - exact).norm().item<double>(),
            .05 * exact.norm().item<double>());
}

TEST(QuantizeAwq, RefusesToRunWithoutData) {
  Model model = network_with_outliers();
  EXPECT_THAT(refusal("quantize.awq", model), HasSubstr("needs calibration data"));
}

}  // namespace
}  // namespace compress::testing
