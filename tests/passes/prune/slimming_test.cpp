// Tests of passes/prune/slimming.

#include "tests/passes/prune/small_convnet.h"

namespace compress::testing {
namespace {

TEST(PruneSlimming, RemovesTheChannelsWithTheLeastScales) {
  Model model = small_convnet();
  at::Tensor scales = at::arange(1, 17, at::kFloat) / 4;
  model.set_tensor("n.weight", scales);
  const RunResult result = train_with(model, "prune.slimming,budget={macs=0.6},strength=0,epoch=0",
                                      "optimizer={sgd={lr=1e-9}}");
  EXPECT_LE(result.steps.at(0).measures.at("macs_kept"), 0.6);
  const at::Tensor left = model.tensor("n.weight").detach();
  ASSERT_LT(left.numel(), 16);
  const at::Tensor expected = scales.narrow(0, 16 - left.numel(), left.numel());
  EXPECT_LT((left - expected).abs().max().item<double>(), 1e-5);
}

// With no other gradient worth the name each step moves a scale by lr * strength towards zero.
TEST(PruneSlimming, PullsScalesToZero) {
  Model model = small_convnet();
  model.set_tensor("n.weight", at::full({16}, 2.f));
  model.set_tensor("fc.weight", at::zeros({4, 12}));  // the loss does not hear the scales
  train_with(
      model, "prune.slimming,budget={macs=0.9},strength=0.5,epoch=4",
      "optimizer={sgd={lr=0.01,momentum=0}},groups=[{where=fc.*,freeze=true}],schedule=constant");
  const at::Tensor scales = model.tensor("n.weight").detach();
  EXPECT_LT(scales.numel(), 17);
  EXPECT_LT((scales - (2 - 16 * 0.01 * 0.5)).abs().max().item<double>(), 1e-4);
}

TEST(PruneSlimming, RefusesANetworkWithoutScales) {
  Model model = parse_filled(
      "input x : f32[batch,3,8,8]\nparameter w : f32[4,3,3,3]\n"
      "y = aten::conv2d(x, w) : f32[batch,4,6,6]\n"
      "m = aten::mean.dim(y, [2, 3]) : f32[batch,4]\nreturn y = m");
  try {
    train_with(model, "prune.slimming");
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no batch norm with a scale"));
  }
}

}  // namespace
}  // namespace compress::testing
