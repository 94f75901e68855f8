// Tests of passes/quantize/adaround.

#include "passes/quantize/round_to_nearest.h"
#include "tests/passes/quantize/calibrated.h"

#include <fmt/format.h>

#include <algorithm>

namespace compress::testing {
namespace {

// The least output error of all 2^8 ways to round one row up or down.
double least_error(const at::Tensor& weight, const at::Tensor& scale, const at::Tensor& x) {
  const at::Tensor down = (weight / scale).floor();
  const at::Tensor exact = x.matmul(weight.t());
  double best = 1e30;
  for (int64_t choice = 0; choice < 256; ++choice) {
    at::Tensor up = at::zeros_like(weight);
    for (int64_t i = 0; i < 8; ++i) up[0][i] = static_cast<float>(choice >> i & 1);
    const at::Tensor rounded = (down + up).clamp(-4, 3) * scale;
    best = std::min(best, (x.matmul(rounded.t()) - exact).square().sum().item<double>());
  }
  return best;
}

TEST(QuantizeAdaround, FindsTheBestOfAllRoundingsOfARow) {
  Model model = parse_filled(R"(
input x : f32[batch,8]
parameter fc.weight : f32[1,8]
y = aten::linear(x, fc.weight, none) : f32[batch,1] @ fc
return y = y
)");
  at::manual_seed(5);
  const at::Tensor x = at::randn({96, 8}) + at::randn({96, 1}) * 2;
  const at::Tensor weight = model.tensor("fc.weight").clone();
  const at::Tensor exact = model.forward({x})[0];
  const auto error = [&](const Model& rounded) {
    return (rounded.forward({x})[0] - exact).square().sum().item<double>();
  };
  Model nearest = model.clone();
  run_pass("quantize.weights{bits=3,range=mse}", nearest);
  run_passes("quantize.adaround{bits=3,ends=0,iterations=1500,rate=0.02,penalty=0.3}", model,
             calibrated_on(x));
  const at::Tensor scale = weights(model)[0].quantized()->scale;
  const double least = least_error(weight, scale, x);
  EXPECT_GT(error(nearest), 1.5 * least) << "the case is too easy";
  EXPECT_NEAR(error(model), least, 1e-3 * least);
}

TEST(QuantizeAdaround, IsNearerThanNearestRounding) {
  const at::Tensor x = smooth_images();
  const Model exact = residual_network();
  Model nearest = exact.clone(), learned = exact.clone();
  run_pass("quantize.weights{bits=3,range=mse}", nearest);
  const RunResult result = run_passes("quantize.adaround{bits=3,ends=0,iterations=300,rate=0.02}",
                                      learned, calibrated_on(x));
  EXPECT_LT(output_error(exact, learned, x), 0.7 * output_error(exact, nearest, x));
  const auto& measures = result.steps.at(0).measures;
  EXPECT_LT(measures.at("unit_error"), measures.at("unit_error_nearest"));
  EXPECT_EQ(result.steps.at(0).counts.at("units"), 4);
  for (const Weight& weight : weights(std::as_const(learned))) {
    EXPECT_EQ(weight.encoding(), "int3 channel");
  }
}

TEST(QuantizeAdaround, GivesTheEndsTheirBits) {
  Model model = residual_network();
  run_passes("quantize.adaround{bits=2,grid=affine,iterations=5}", model,
             calibrated_on(smooth_images()));
  const std::vector<Weight> all = weights(model);
  EXPECT_EQ(all[0].quantized()->bits, 8);
  EXPECT_EQ(all[1].quantized()->bits, 2);
  EXPECT_EQ(all[3].quantized()->bits, 8);
}

TEST(QuantizeAdaround, RoundsTheInputsOfTheLayers) {
  const at::Tensor x = smooth_images();
  const Model exact = residual_network();
  Model model = exact.clone();
  const RunResult result =
      run_passes("quantize.adaround{bits=8,activations=8,iterations=50,step_iterations=20}", model,
                 calibrated_on(x));
  EXPECT_EQ(count_of(model, "aten::fake_quantize_per_tensor_affine"), 4);
  EXPECT_EQ(result.steps.at(0).counts.at("activations_quantized"), 4);
  // Eight bits in four layers: a step of 1/255 of a range, some hundredths of a percent in power.
  EXPECT_LT(output_error(exact, model, x), 1e-3);
}

TEST(QuantizeAdaround, SeesTheInputsOfTheLayersRounded) {
  const at::Tensor x = smooth_images();
  const auto measures = [&](int activations) {
    Model model = residual_network();
    const std::string line = fmt::format(
        "quantize.adaround{{bits=8,activations={},ends=0,iterations=1,"
        "step_iterations=300,step_rate=0.01}}",
        activations);
    return run_passes(line, model, calibrated_on(x)).steps.at(0).measures;
  };
  const auto fine = measures(8), coarse = measures(2);
  EXPECT_GT(coarse.at("unit_error_nearest"), 10 * fine.at("unit_error_nearest"));
  // The steps begin where the inputs are rounded best; the outputs want them a little elsewhere.
  EXPECT_LT(coarse.at("unit_error"), 0.99 * coarse.at("unit_error_nearest"));
}

TEST(QuantizeAdaround, KeepsPrunedZeros) {
  Model model = residual_network();
  run_pass("prune.magnitude{sparsity=0.5}", model);
  std::vector<at::Tensor> zeros;
  for (const Weight& weight : weights(model)) zeros.push_back(weight.effective() == 0);
  run_passes("quantize.adaround{bits=3,grid=affine,iterations=100,rate=0.1}", model,
             calibrated_on(smooth_images()));
  const std::vector<Weight> after = weights(model);
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i].effective().index({zeros[i]}).abs().max().item<float>(), 0);
  }
}

TEST(QuantizeAdaround, LeavesWhatItCannotRunAloneAndSaysSo) {
  Model model = parse_filled(R"(
input x : i64[batch,5]
parameter words.weight : f32[10,8]
parameter fc.weight : f32[16,8]
e = aten::embedding(words.weight, x) : f32[batch,5,8] @ words
y = aten::linear(e, fc.weight, none) : f32[batch,5,16] @ fc
return y = y
)");
  RunOptions options;
  options.calibration = [](const auto& take) { take({at::arange(40).remainder(10).view({8, 5})}); };
  const RunResult result = run_passes("quantize.adaround{iterations=5}", model, options);
  EXPECT_EQ(result.steps.at(0).counts.at("weights_left_alone"), 1);
  EXPECT_THAT(
      result.steps.at(0).messages.at(0),
      HasSubstr("words.weight: left alone, only weights of convolutions and linear layers"));
  EXPECT_TRUE(weights(model)[1].is_quantized());
}

TEST(QuantizeAdaround, ReportsNoChangeWhenAllIsQuantized) {
  Model model = residual_network();
  run_pass("quantize.weights", model);
  const RunResult result =
      run_passes("quantize.adaround{iterations=5}", model, calibrated_on(smooth_images()));
  EXPECT_EQ(result.steps.at(0).change, Change::kNone);
}

TEST(QuantizeAdaround, RefusesToRunWithoutData) {
  Model model = residual_network();
  EXPECT_THAT(refusal("quantize.adaround", model), HasSubstr("needs calibration data"));
}

TEST(QuantizeAdaround, RefusesOneBit) {
  Model model = residual_network();
  EXPECT_THAT(refusal("quantize.adaround{activations=1}", model), HasSubstr("one bit is too few"));
  EXPECT_THAT(refusal("quantize.adaround{ends=1}", model), HasSubstr("one bit is too few"));
  EXPECT_THAT(refusal("quantize.adaround{rate=0}", model), HasSubstr("nothing is learned"));
}

}  // namespace
}  // namespace compress::testing
