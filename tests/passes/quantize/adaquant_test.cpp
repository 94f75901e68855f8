// Tests of passes/quantize/adaquant.

#include "passes/quantize/round_to_nearest.h"
#include "tests/passes/quantize/calibrated.h"

namespace compress::testing {
namespace {

TEST(QuantizeAdaquant, IsNearerThanNearestRounding) {
  const at::Tensor x = smooth_images();
  const Model exact = residual_network();
  Model nearest = exact.clone(), learned = exact.clone();
  run_pass("quantize.weights{bits=3,range=mse}", nearest);
  run_passes("quantize.adaquant{bits=3,ends=0,iterations=300}", learned, calibrated_on(x));
  EXPECT_LT(output_error(exact, learned, x), 0.7 * output_error(exact, nearest, x));
}

// Two features that are always the same: only the sum of their weights counts, so one may move by
// many codes where the other is clipped.
TEST(QuantizeAdaquant, MovesAWeightBySeveralCodes) {
  Model model = parse_model(R"(
input x : f32[batch,3]
parameter fc.weight : f32[1,3] = [[1, -1, 0.1]]
y = aten::linear(x, fc.weight, none) : f32[batch,1] @ fc
return y = y
)");
  at::manual_seed(2);
  const at::Tensor x = at::randn({64, 1}).expand({64, 3}).contiguous();
  run_passes("quantize.adaquant{bits=8,ends=0,iterations=200,rate=0.5,scale_rate=0}", model,
             calibrated_on(x));
  EXPECT_NEAR(weights(model)[0].effective().sum().item<double>(), 0.1, 0.005);
}

TEST(QuantizeAdaquant, MovesBiasesAndScalesWhereItMay) {
  const at::Tensor x = smooth_images();
  const auto run = [&](const std::string& more) {
    Model model = residual_network();
    run_passes("quantize.adaquant{bits=2,ends=0,iterations=50" + more + "}", model,
               calibrated_on(x));
    return model;
  };
  const Model exact = residual_network();
  const Model still = run(",bias_rate=0,scale_rate=0"), moved = run("");
  EXPECT_TRUE(at::equal(still.tensor("block.a.bias"), exact.tensor("block.a.bias")));
  EXPECT_FALSE(at::equal(moved.tensor("block.a.bias"), exact.tensor("block.a.bias")));
  const at::Tensor first = round_to_nearest(exact.tensor("block.a.weight"), 0,
                                            {2, true, Granularity::channel(), RangeMethod::kMse})
                               .scale;
  EXPECT_TRUE(at::equal(weights(still)[1].quantized()->scale, first));
  EXPECT_FALSE(at::equal(weights(moved)[1].quantized()->scale, first));
}

TEST(QuantizeAdaquant, LeavesQuantizedWeightsAlone) {
  Model model = residual_network();
  run_pass("quantize.weights{where=stem.*}", model);
  const RunResult result =
      run_passes("quantize.adaquant{iterations=2}", model, calibrated_on(smooth_images()));
  EXPECT_EQ(result.steps.at(0).counts.at("weights_left_alone"), 1);
  EXPECT_THAT(result.steps.at(0).messages.at(0), HasSubstr("stem.weight: left alone, it is quant"));
}

TEST(QuantizeAdaquant, RefusesANegativeRate) {
  Model model = residual_network();
  EXPECT_THAT(refusal("quantize.adaquant{bias_rate=-1}", model), HasSubstr("-1"));
}

}  // namespace
}  // namespace compress::testing
