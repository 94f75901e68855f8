// Tests of passes/quantize/pd_quant.

#include "tests/passes/quantize/calibrated.h"

namespace compress::testing {
namespace {

TEST(QuantizePdQuant, BringsPredictionsNearer) {
  const at::Tensor x = smooth_images();
  const Model exact = residual_network();
  const auto run = [&](const std::string& prediction) {
    Model model = exact.clone();
    run_passes(
        "quantize.pd_quant{bits=2,activations=4,ends=0,iterations=200,rate=0.02,prediction=" +
            prediction + "}",
        model, calibrated_on(x));
    return divergence(exact, model, x, 4);
  };
  EXPECT_LT(run("1000"), run("0"));
}

// Without its own loss it is QDrop, draw by draw.
TEST(QuantizePdQuant, IsQDropWithoutPredictions) {
  const at::Tensor x = smooth_images();
  Model mine = residual_network(), other = residual_network();
  run_passes("quantize.pd_quant{bits=3,iterations=20,prediction=0}", mine, calibrated_on(x));
  run_passes("quantize.qdrop{bits=3,iterations=20}", other, calibrated_on(x));
  EXPECT_TRUE(at::equal(mine.forward({x})[0], other.forward({x})[0]));
}

// The statistics that the block's batch norm keeps are those of other images.
TEST(QuantizePdQuant, CorrectsInputsTowardsBatchNorms) {
  const auto run = [](const std::string& correction, RunResult& result) {
    Model model = parse_filled(R"(
input x : f32[batch,4,6,6]
parameter conv.weight : f32[8,4,3,3]
buffer bn.running_mean : f32[8] = [1, 1, 1, 1, 1, 1, 1, 1]
buffer bn.running_var : f32[8] = [2, 2, 2, 2, 2, 2, 2, 2]
parameter fc.weight : f32[16,8]
conv = aten::conv2d(x, conv.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ conv
bn = aten::batch_norm(conv, none, none, bn.running_mean, bn.running_var, false, 0.1, 1e-5, true) : f32[batch,8,6,6] @ bn
out = aten::relu(bn) : f32[batch,8,6,6]
mean = aten::mean.dim(out, [2, 3]) : f32[batch,8]
logits = aten::linear(mean, fc.weight, none) : f32[batch,16] @ fc
return output = logits
)");
    result = run_passes("quantize.pd_quant{bits=3,iterations=50,correction=" + correction + "}",
                        model, calibrated_on(smooth_images()));
    return weights(model).at(0).effective();
  };
  RunResult with, without;
  const at::Tensor corrected = run("20", with), plain = run("0", without);
  EXPECT_FALSE(at::equal(corrected, plain));
  EXPECT_EQ(with.steps.at(0).counts.at("units_corrected"), 1);
  EXPECT_FALSE(without.steps.at(0).counts.contains("units_corrected"));
}

TEST(QuantizePdQuant, SaysThatThereIsNothingToCorrectTowards) {
  Model model = residual_network();
  const RunResult result =
      run_passes("quantize.pd_quant{iterations=2}", model, calibrated_on(smooth_images()));
  EXPECT_THAT(result.steps.at(0).messages,
              ::testing::Contains(HasSubstr("in front of fold.batch_norm")));
}

TEST(QuantizePdQuant, RefusesAModelWithoutLogits) {
  Model model = parse_filled(R"(
input x : f32[batch,4,6,6]
parameter conv.weight : f32[8,4,3,3]
y = aten::conv2d(x, conv.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ conv
return y = y
)");
  std::string message = "nothing was thrown";
  try {
    run_passes("quantize.pd_quant{iterations=2}", model, calibrated_on(smooth_images()));
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, HasSubstr("the first output is not one row of logits a sample"));
}

TEST(QuantizePdQuant, LeavesWhatIsQuantizedAlone) {
  Model model = residual_network();
  run_pass("quantize.weights", model);
  const RunResult result =
      run_passes("quantize.pd_quant{iterations=2}", model, calibrated_on(smooth_images()));
  EXPECT_EQ(result.steps.at(0).change, Change::kNone);
}

}  // namespace
}  // namespace compress::testing
