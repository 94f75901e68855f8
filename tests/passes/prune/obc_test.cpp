// Tests of passes/prune/obc.

#include "tests/passes/second_order/two_layers.h"

namespace compress::testing {
namespace {

TEST(PruneObc, ChangesOutputsLessThanMagnitude) {
  const Model original = parse_filled(kTwoLayers);
  for (const char* sparsity : {"0.3", "0.5", "0.7"}) {
    Model smallest = original.clone(), model = original.clone();
    run_pass(std::string("prune.magnitude{sparsity=") + sparsity + "}", smallest);
    run_passes(std::string("prune.obc{sparsity=") + sparsity + "}", model, calibrated(samples()));
    EXPECT_LT(output_error(model, original), output_error(smallest, original)) << sparsity;
    EXPECT_EQ((weights(model)[0].effective() == 0).sum().item<int64_t>(),
              (weights(smallest)[0].effective() == 0).sum().item<int64_t>());
  }
}

TEST(PruneObc, KeepsTwoOfFourInputChannelsOfAConvolution) {
  Model model = parse_filled(R"(
input x : f32[batch,8,6,6]
parameter w : f32[5,8,3,3]
y = aten::conv2d(x, w, none, [1, 1], [1, 1]) : f32[batch,5,6,6]
return y = y
)");
  run_passes("prune.obc{n=2,m=4}", model, calibrated(at::randn({20, 8, 6, 6})));
  const at::Tensor kept = weights(model)[0].effective().ne(0).view({5, 2, 4, 9}).sum(2);
  EXPECT_TRUE((kept == 2).all().item<bool>());
}

TEST(PruneObc, LeavesCodesAloneAndSaysSo) {
  Model model = parse_filled(kTwoLayers);
  run_pass("quantize.weights{where=a.weight}", model);
  const RunResult result = run_passes("prune.obc", model, calibrated(samples()));
  EXPECT_THAT(result.steps[0].messages.at(0), HasSubstr("it is quantized (int4 channel)"));
}

TEST(PruneObc, RefusesASparsityAboveOne) {
  Model model = parse_filled(kTwoLayers);
  EXPECT_THAT(refusal("prune.obc{sparsity=1.5}", model), HasSubstr("1.5"));
}

}  // namespace
}  // namespace compress::testing
