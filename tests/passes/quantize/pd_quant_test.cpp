// Tests of passes/quantize/pd_quant.

#include "tests/passes/quantize/calibrated.h"

namespace compress::testing {
namespace {

// Mean divergence of softened predictions, in double precision.
double divergence(const Model& exact, const Model& model, const at::Tensor& x) {
  const auto predictions = [&](const Model& of) {
    return at::log_softmax(of.forward({x})[0].to(at::kDouble) / 4, -1);
  };
  const at::Tensor wanted = predictions(exact);
  return (wanted.exp() * (wanted - predictions(model))).sum().item<double>() / x.size(0);
}

TEST(QuantizePdQuant, BringsPredictionsNearer) {
  const at::Tensor x = smooth_images();
  const Model exact = residual_network();
  const auto run = [&](const std::string& prediction) {
    Model model = exact.clone();
    run_passes(
        "quantize.pd_quant{bits=2,activations=4,ends=0,iterations=200,rate=0.02,prediction=" +
            prediction + "}",
        model, calibrated_on(x));
    return divergence(exact, model, x);
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
