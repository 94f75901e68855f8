// Tests of passes/prune/sparse_gpt.

#include "tests/passes/second_order/two_layers.h"

#include <fmt/format.h>

namespace compress::testing {
namespace {

int64_t zeros_of(Model& model, size_t index) {
  return (weights(model).at(index).effective() == 0).sum().item<int64_t>();
}

TEST(PruneSparseGpt, ChangesOutputsLessThanMagnitude) {
  const Model original = parse_filled(kTwoLayers);
  for (const char* sparsity : {"0.3", "0.5", "0.7"}) {
    Model smallest = original.clone(), model = original.clone();
    run_pass(std::string("prune.magnitude{sparsity=") + sparsity + "}", smallest);
    run_passes(std::string("prune.sparse_gpt{sparsity=") + sparsity + "}", model,
               calibrated(samples()));
    EXPECT_LT(output_error(model, original), output_error(smallest, original)) << sparsity;
    for (size_t i : {0, 1}) EXPECT_EQ(zeros_of(model, i), zeros_of(smallest, i));
  }
}

TEST(PruneSparseGpt, LeavesAMaskAndTheElementsUnderIt) {
  Model model = parse_filled(kTwoLayers);
  run_passes("prune.sparse_gpt", model, calibrated(samples()));
  EXPECT_EQ(weights(model)[0].encoding(), "f32 mask");
  EXPECT_EQ(zeros_of(model, 0), 120);
}

TEST(PruneSparseGpt, KeepsTwoOfFourInputChannelsOfAConvolution) {
  Model model = parse_filled(R"(
input x : f32[batch,8,6,6]
parameter w : f32[5,8,3,3]
y = aten::conv2d(x, w, none, [1, 1], [1, 1]) : f32[batch,5,6,6]
return y = y
)");
  run_passes("prune.sparse_gpt{n=2,m=4}", model, calibrated(at::randn({20, 8, 6, 6})));
  const at::Tensor kept = weights(model)[0].effective().ne(0).view({5, 2, 4, 9}).sum(2);
  EXPECT_TRUE((kept == 2).all().item<bool>());
}

TEST(PruneSparseGpt, CountsZerosThatAreThere) {
  Model model = parse_filled(kTwoLayers);
  run_pass("prune.magnitude{sparsity=0.5}", model);
  EXPECT_EQ(run_passes("prune.sparse_gpt{sparsity=0.5,block=1000}", model, calibrated(samples()))
                .steps[0]
                .counts.at("weights_zeroed"),
            0);
  run_passes("prune.sparse_gpt{sparsity=0.75}", model, calibrated(samples()));
  EXPECT_EQ(zeros_of(model, 0), 180);
}

TEST(PruneSparseGpt, GivesLayersTheSharesThatCostThemLeast) {
  const Model original = parse_filled(kTwoLayers);
  Model uniform = original.clone(), layerwise = original.clone();
  run_passes("prune.sparse_gpt{sparsity=0.6}", uniform, calibrated(samples()));
  const RunResult result = run_passes("prune.sparse_gpt{sparsity=0.6,allocation=layerwise}",
                                      layerwise, calibrated(samples()));
  EXPECT_EQ(zeros_of(layerwise, 0) + zeros_of(layerwise, 1),
            zeros_of(uniform, 0) + zeros_of(uniform, 1));
  EXPECT_NE(zeros_of(layerwise, 0), zeros_of(uniform, 0));
  EXPECT_THAT(result.steps[0].messages.at(0), HasSubstr("a.weight: "));
}

TEST(PruneSparseGpt, SharesOutWhatMasksHaveLeft) {
  const auto pruned = [](double sparsity) {
    Model model = parse_filled(kTwoLayers);
    run_pass("prune.magnitude{sparsity=0.9,where=b.weight}", model);
    const int64_t before = zeros_of(model, 1);
    run_passes(fmt::format("prune.sparse_gpt{{sparsity={},allocation=layerwise}}", sparsity), model,
               calibrated(samples()));
    EXPECT_GE(zeros_of(model, 1), before);
    int64_t elements = 0;
    for (const Weight& weight : weights(std::as_const(model))) elements += weight.elements();
    return static_cast<double>(zeros_of(model, 0) + zeros_of(model, 1)) /
           static_cast<double>(elements);
  };
  EXPECT_NEAR(pruned(0.6), 0.6, 0.005);
  EXPECT_NEAR(pruned(0.995), 0.995, 0.005);
}

TEST(PruneSparseGpt, RefusesAnAllocationOfRuns) {
  Model model = parse_filled(kTwoLayers);
  EXPECT_THAT(refusal("prune.sparse_gpt{n=2,m=4,allocation=layerwise}", model),
              HasSubstr("n of m leaves each weight the same share"));
}

TEST(PruneSparseGpt, LeavesCodesAndFewChannelsAloneAndSaysSo) {
  Model model = parse_filled(kTwoLayers);
  run_pass("quantize.weights{where=a.weight}", model);
  const RunResult result = run_passes("prune.sparse_gpt{n=8,m=16}", model, calibrated(samples()));
  EXPECT_THAT(result.steps[0].messages.at(0), HasSubstr("12 input channels make no run of 16"));
  const RunResult other = run_passes("prune.sparse_gpt", model, calibrated(samples()));
  EXPECT_THAT(other.steps[0].messages.at(0), HasSubstr("it is quantized (int4 channel)"));
}

TEST(PruneSparseGpt, RefusesRunsWithoutALength) {
  Model model = parse_filled(kTwoLayers);
  EXPECT_THAT(refusal("prune.sparse_gpt{n=2}", model), HasSubstr("n and m go together"));
  EXPECT_THAT(refusal("prune.sparse_gpt{n=5,m=4}", model), HasSubstr("5 of 4 cannot stay"));
}

}  // namespace
}  // namespace compress::testing
