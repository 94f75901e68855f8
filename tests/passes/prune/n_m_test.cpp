// Tests of passes/prune/n_m.

#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

TEST(PruneNM, KeepsTwoOfFourNeighboursInARow) {
  Model model = parse_model("fc.weight : f32[2,4] = [[1, -4, 3, -2], [8, 7, -6, 5]]");
  EXPECT_EQ(run_pass("prune.n_m{n=2,m=4}", model), Change::kSome);
  EXPECT_EQ(effective_weight(model, "fc.weight"), "[[0, -4, 3, 0], [8, 7, 0, 0]]");
}

TEST(PruneNM, RunsAlongTheFirstDimensionOfAnInOutMatrix) {
  Model model = parse_model(R"(
input x : f32[1,2]
parameter fc.bias : f32[2] = [0, 0]
parameter fc.weight : f32[2,2] = [[1, 5], [3, -4]]
y = aten::addmm(fc.bias, x, fc.weight)
return y = y
)");
  run_pass("prune.n_m{n=1,m=2}", model);
  EXPECT_EQ(effective_weight(model, "fc.weight"), "[[0, 5], [3, 0]]");
}

TEST(PruneNM, CountsTheChannelsOfEachGroupOfATransposedConvolution) {
  Model model = parse_filled(R"(
input x : f32[1,8,5]
parameter up.weight : f32[8,3,2]
y = aten::conv_transpose1d(x, up.weight, none, [1], [0], [0], 2)
return y = y
)");
  run_pass("prune.n_m{n=2,m=4}", model);
  const at::Tensor kept = weights(model)[0].effective().ne(0).view({2, 4, 3, 2}).sum(1);
  EXPECT_TRUE((kept == 2).all().item<bool>());
}

TEST(PruneNM, LeavesFewInputChannelsAloneAndSaysSo) {
  Model model = parse_filled(
      "input x : f32[1,3,8,8]\nparameter w : f32[4,3,3,3]\n"
      "y = aten::conv2d(x, w)\nreturn y = y");
  const RunResult result = run_passes("prune.n_m{n=2,m=4}", model);
  EXPECT_EQ(result.steps.at(0).counts.at("weights_left_alone"), 1);
  EXPECT_THAT(result.steps.at(0).messages.at(0), HasSubstr("3 input channels"));
  EXPECT_EQ(model.graph().nodes().size(), 1u);
}

TEST(PruneNM, RefusesToKeepMoreThanThereAre) {
  Model model = parse_model("fc.weight : f32[1,4] = [[1, -4, 3, -2]]");
  EXPECT_THAT(refusal("prune.n_m{n=5,m=4}", model), HasSubstr("5 of 4"));
}

}  // namespace
}  // namespace compress::testing
