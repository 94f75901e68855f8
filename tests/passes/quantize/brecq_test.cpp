// Tests of passes/quantize/brecq.

#include "tests/passes/quantize/calibrated.h"

namespace compress::testing {
namespace {

TEST(QuantizeBrecq, IsNearerThanNearestRounding) {
  const at::Tensor x = smooth_images();
  const Model exact = residual_network();
  Model nearest = exact.clone(), learned = exact.clone();
  run_pass("quantize.weights{bits=3,range=mse}", nearest);
  const RunResult result = run_passes("quantize.brecq{bits=3,ends=0,iterations=300,rate=0.02}",
                                      learned, calibrated_on(x));
  EXPECT_LT(output_error(exact, learned, x), 0.7 * output_error(exact, nearest, x));
  EXPECT_EQ(result.steps.at(0).counts.at("units"), 3);
}

// The range that is best for the input is far too wide for the output: the widest feature has no
// weight. Only a step that was learned on the output knows.
TEST(QuantizeBrecq, LearnsTheStepsOfActivationsOnTheOutput) {
  at::manual_seed(9);
  at::Tensor x = at::randn({96, 8});
  x.select(1, 0).mul_(10);
  const auto error = [&](int iterations) {
    Model model = parse_filled(R"(
input x : f32[batch,8]
parameter fc.weight : f32[4,8]
y = aten::linear(x, fc.weight, none) : f32[batch,4] @ fc
return y = y
)");
    model.tensor("fc.weight").select(1, 0).zero_();
    const Model exact = model.clone();
    run_passes(
        "quantize.brecq{bits=8,activations=3,ends=0,iterations=1,step_rate=0.05,"
        "step_iterations=" +
            std::to_string(iterations) + "}",
        model, calibrated_on(x));
    EXPECT_EQ(count_of(model, "aten::fake_quantize_per_tensor_affine"), 1);
    return output_error(exact, model, x);
  };
  EXPECT_LT(error(300), 0.3 * error(1));
}

TEST(QuantizeBrecq, LeavesOtherWeightsOfABlockAsTheyAre) {
  Model model = residual_network();
  const at::Tensor before = model.tensor("block.a.weight").clone();
  run_passes("quantize.brecq{iterations=5,where=block.b.*}", model, calibrated_on(smooth_images()));
  EXPECT_TRUE(at::equal(model.tensor("block.a.weight"), before));
  EXPECT_TRUE(weights(model)[2].is_quantized());
}

TEST(QuantizeBrecq, RefusesActivationsThatDoNotCountSamples) {
  Model model = parse_filled(R"(
input x : f32[6,8]
parameter fc.weight : f32[4,8]
flat = aten::view(x, [3, 16]) : f32[3,16]
pairs = aten::view(flat, [12, 4, 1]) : f32[12,4,1]
single = aten::flatten.using_ints(pairs, 0, -1) : f32[48]
rows = aten::view(single, [-1, 8]) : f32[6,8]
half = aten::slice.Tensor(rows, 0, 0, 3) : f32[3,8]
y = aten::linear(half, fc.weight, none) : f32[3,4] @ fc
return y = y
)");
  RunOptions options;
  options.calibration = [](const auto& take) { take({at::randn({6, 8})}); };
  std::string message = "nothing was thrown";
  try {
    run_passes("quantize.brecq{iterations=5}", model, options);
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, HasSubstr("3 rows for 6 samples"));
}

// The head reads only two of the eight channels: differences of the others count for nothing.
TEST(QuantizeBrecq, WeighsOutputsByWhatTheyDoToPredictions) {
  const at::Tensor x = smooth_images();
  Model exact = residual_network();
  exact.tensor("fc.weight").mul_(0.03).slice(1, 2).zero_();  // logits of a deviation of 2
  const auto off = [&](const std::string& loss) {
    Model model = exact.clone();
    run_passes("quantize.brecq{bits=2,ends=0,iterations=300,rate=0.02,loss=" + loss + "}", model,
               calibrated_on(x));
    return divergence(exact, model, x, 1);
  };
  EXPECT_LT(off("fisher"), 0.5 * off("squared"));
}

}  // namespace
}  // namespace compress::testing
