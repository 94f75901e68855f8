// Tests of passes/prune/wanda.

#include "tests/passes/second_order/two_layers.h"

namespace compress::testing {
namespace {

// Root mean squares of the inputs .5, 2, 1, .25: scores .5, 1, .2, .2 (Sun et al., ICLR 2024,
// equation 1, computed by hand); magnitude alone would keep the first and the last.
TEST(PruneWanda, MatchesTheGoldenVector) {
  Model model = parse_model(R"(
input x : f32[batch,4]
parameter w : f32[1,4] = [[1, -0.5, 0.2, 0.8]]
y = aten::linear(x, w) : f32[batch,1]
return y = y
)");
  const at::Tensor x = at::tensor({.5f, 2.f, 1.f, .25f, -.5f, -2.f, 1.f, -.25f}).view({2, 4});
  run_passes("prune.wanda{sparsity=0.5}", model, calibrated(x));
  EXPECT_EQ(effective_weight(model, "w"), "[[1, -0.5, 0, 0]]");
}

TEST(PruneWanda, ZeroesTheSameNumberInEachRow) {
  Model model = parse_filled(R"(
input x : f32[batch,20]
parameter w : f32[9,20]
y = aten::linear(x, w) : f32[batch,9]
return y = y
)");
  const at::Tensor before = weights(model)[0].effective().clone();
  run_passes("prune.wanda{sparsity=0.35}", model, calibrated(at::randn({50, 20})));
  const at::Tensor after = weights(model)[0].effective();
  EXPECT_TRUE(((after == 0).sum(1) == 7).all().item<bool>());
  EXPECT_TRUE(at::equal(after, before * after.ne(0)));
}

// Scores by hand: rows 1, 2 and 10, 20 times inputs of root mean square 1 and 0.5.
TEST(PruneWanda, ComparesTheWeightsOfALayerIfAsked) {
  Model model = parse_model(R"(
input x : f32[batch,2]
parameter w : f32[2,2] = [[1, 2.5], [10, 20.5]]
y = aten::linear(x, w) : f32[batch,2]
return y = y
)");
  const at::Tensor x = at::tensor({1.f, .5f, -1.f, .5f}).view({2, 2});
  run_passes("prune.wanda{sparsity=0.5,scope=layer}", model, calibrated(x));
  EXPECT_EQ(effective_weight(model, "w"), "[[0, 0], [10, 20.5]]");
}

TEST(PruneWanda, KeepsTwoOfFourInputChannelsOfEachGroup) {
  Model model = parse_filled(R"(
input x : f32[batch,8,5,5]
parameter w : f32[6,4,3,3]
y = aten::conv2d(x, w, none, [1, 1], [1, 1], [1, 1], 2) : f32[batch,6,5,5]
return y = y
)");
  at::Tensor x = at::randn({4, 8, 5, 5});
  x.narrow(1, 0, 2) *= 100;  // the first group hears two of its channels, the second all
  run_passes("prune.wanda{n=2,m=4}", model, calibrated(x));
  const at::Tensor kept = weights(model)[0].effective().ne(0);
  EXPECT_TRUE((kept.sum(1) == 2).all().item<bool>());
  EXPECT_GT(kept.narrow(0, 0, 3).narrow(1, 0, 2).to(at::kFloat).mean().item<float>(), 0.9);
}

TEST(PruneWanda, LeavesFewInputChannelsAloneAndSaysSo) {
  Model model = parse_filled(
      "input x : f32[batch,3,8,8]\nparameter w : f32[4,3,3,3]\n"
      "y = aten::conv2d(x, w) : f32[batch,4,6,6]\nreturn y = y");
  const RunResult result =
      run_passes("prune.wanda{n=2,m=4}", model, calibrated(at::randn({2, 3, 8, 8})));
  EXPECT_THAT(result.steps[0].messages.at(0), HasSubstr("3 input channels make no run of 4"));
}

TEST(PruneWanda, RefusesToKeepMoreThanThereAre) {
  Model model = parse_model("fc.weight : f32[1,4] = [[1, -4, 3, -2]]");
  EXPECT_THAT(refusal("prune.wanda{n=5,m=4}", model), HasSubstr("5 of 4"));
}

}  // namespace
}  // namespace compress::testing
