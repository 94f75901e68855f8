// Tests of passes/structured/channel_scores.

#include "passes/structured/channel_scores.h"

#include "passes/structured/channel_activity.h"
#include "tests/support/pass_test.h"

#include <cmath>

namespace compress::testing {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pointwise;

// Weights small enough to count by hand: rows of a, scales of the norm, columns of b.
constexpr const char* kNetwork = R"(
input x : f32[batch,2]
parameter a.weight : f32[3,2] = [[1, -2], [0, 3], [2, 2]]
parameter n.weight : f32[3] = [0.5, -2, 1]
buffer n.mean : f32[3] = [0, 0, 0]
buffer n.var : f32[3] = [1, 1, 1]
parameter b.weight : f32[2,3] = [[1, 0, -1], [2, 0, 4]]
a = aten::linear(x, a.weight) : f32[batch,3]
n = aten::batch_norm(a, n.weight, none, n.mean, n.var, false, 0.1, 0, true) : f32[batch,3]
r = aten::relu(n) : f32[batch,3]
b = aten::linear(r, b.weight) : f32[batch,2]
return y = b
)";

ChannelScores scores_of(const Model& model, ChannelCriterion criterion,
                        ScoreReduction reduction = ScoreReduction::kSum) {
  return combine(analyse(model), weight_scores(model, criterion), reduction);
}

TEST(ChannelScores, SumWhatGoesTogether) {
  const Model model = parse_filled(kNetwork);
  // |row of a| + |scale| + |column of b|, by hand.
  EXPECT_THAT(scores_of(model, ChannelCriterion::kL1),
              ElementsAre(ElementsAre(3 + 0.5 + 3, 3 + 2 + 0, 4 + 1 + 5)));
  EXPECT_THAT(scores_of(model, ChannelCriterion::kL2),
              ElementsAre(ElementsAre(5 + 0.25 + 5, 9 + 4 + 0, 8 + 1 + 17)));
  EXPECT_THAT(scores_of(model, ChannelCriterion::kBatchNorm), ElementsAre(ElementsAre(0.5, 2, 1)));
}

TEST(ChannelScores, ReduceOverTheTensorsOfAChannel) {
  const Model model = parse_filled(kNetwork);
  const auto first = [&](ScoreReduction how) {
    return scores_of(model, ChannelCriterion::kL1, how)[0][0];
  };
  EXPECT_DOUBLE_EQ(first(ScoreReduction::kMean), 6.5 / 3);
  EXPECT_DOUBLE_EQ(first(ScoreReduction::kMax), 3);
  EXPECT_DOUBLE_EQ(first(ScoreReduction::kProduct), 4.5);
  EXPECT_DOUBLE_EQ(first(ScoreReduction::kFirst), 3);
}

// He et al., CVPR 2019: the filter in the middle of the others is the one to go.
TEST(ChannelScores, FpgmSumsDistancesToOtherFilters) {
  const Model model = parse_filled(kNetwork);
  const double ab = std::sqrt(26.0), ac = std::sqrt(17.0), bc = std::sqrt(5.0);
  EXPECT_THAT(scores_of(model, ChannelCriterion::kFpgm),
              ElementsAre(Pointwise(DoubleNear(1e-5), {ab + ac, ab + bc, ac + bc})));
}

// Lee et al., ICLR 2021: numbers computed from equation 3 by hand.
TEST(ChannelScores, LampDividesBySquaresThatAreNoSmaller) {
  EXPECT_THAT(lamp({1, 4, 9, 0.25}),
              Pointwise(DoubleNear(1e-6), {0.0714286, 0.3076923, 1.0, 0.0175439}));
  EXPECT_THAT(lamp({0.01, 0.04}), Pointwise(DoubleNear(1e-12), {0.2, 1.0}));
}

TEST(ChannelScores, AreMadeComparable) {
  const auto normalized = [](ScoreNormalization how) {
    std::vector<double> scores = {1, 3, 5};
    normalize(scores, how);
    return scores;
  };
  EXPECT_THAT(normalized(ScoreNormalization::kNone), ElementsAre(1, 3, 5));
  EXPECT_THAT(normalized(ScoreNormalization::kMean), ElementsAre(1 / 3.0, 1, 5 / 3.0));
  EXPECT_THAT(normalized(ScoreNormalization::kSum), ElementsAre(1 / 9.0, 3 / 9.0, 5 / 9.0));
  EXPECT_THAT(normalized(ScoreNormalization::kMax), ElementsAre(0.2, 0.6, 1));
  EXPECT_THAT(normalized(ScoreNormalization::kRange), ElementsAre(0, 0.5, 1));
  EXPECT_THAT(normalized(ScoreNormalization::kGaussian), ElementsAre(-1, 0, 1));
}

TEST(ChannelScores, TaylorIsTheSquareOfTheFirstOrderChange) {
  Model model = parse_filled(kNetwork);
  for (NamedTensor& named : model.mutable_tensors()) {
    if (named.role == TensorRole::kParameter) named.tensor.set_requires_grad(true);
  }
  TaylorScores taylor;
  at::Tensor expected = at::zeros({3}, at::kDouble);
  for (const double scale : {1.0, -2.0}) {
    model.forward({at::full({1, 2}, scale)})[0].sum().backward();
    const at::Tensor a = model.tensor("a.weight"), b = model.tensor("b.weight");
    const at::Tensor n = model.tensor("n.weight");
    expected +=
        (a * a.grad()).sum(1).square() + (b * b.grad()).sum(0).square() + (n * n.grad()).square();
    taylor.add(model);
    for (NamedTensor& named : model.mutable_tensors()) named.tensor.mutable_grad().reset();
  }
  const ChannelScores scores = combine(analyse(model), taylor.scores(model), ScoreReduction::kSum);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(scores[0][static_cast<size_t>(i)], expected[i].item<double>() / 2, 1e-6);
  }
}

TEST(ChannelScores, CountWhatIsNotZero) {
  const at::Tensor x = at::tensor({1.f, 0.f, 0.f, 2.f, 3.f, 0.f, 0.f, 0.f}).view({2, 2, 1, 2});
  // Channel 0 holds 1, 0 and 3, 0; channel 1 holds 0, 2 and 0, 0.
  EXPECT_TRUE(at::equal(share_of_nonzeros(x, 1), at::tensor({0.5, 0.25}, at::kDouble)));
}

TEST(ChannelScores, RankIsThatOfTheMaps) {
  at::Tensor maps = at::zeros({2, 2, 3, 3});
  maps[0][0] = at::eye(3);
  maps[1][0] = at::ones({3, 3});
  maps[0][1] = at::diag(at::tensor({1.f, 2.f, 0.f}));
  EXPECT_TRUE(at::equal(mean_rank(maps), at::tensor({2.0, 1.0}, at::kDouble)));
}

// Against brute force: leave the channel out, fit the rest by least squares.
TEST(ChannelScores, ObsIsTheErrorThatTheOthersCannotMakeUpFor) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({400, 6}, at::kDouble).matmul(at::randn({6, 6}, at::kDouble));
  const at::Tensor weight = at::randn({4, 6}, at::kDouble);
  const at::Tensor y = x.matmul(weight.t());
  const at::Tensor scores = obs_scores(weight, x.t().matmul(x) / 400, 2);
  for (int64_t channel = 0; channel < 3; ++channel) {
    std::vector<int64_t> rest;
    for (int64_t i = 0; i < 6; ++i) {
      if (i / 2 != channel) rest.push_back(i);
    }
    const at::Tensor others = x.index_select(1, at::tensor(rest, at::kLong));
    const at::Tensor fit = at::linalg_solve(others.t().matmul(others), others.t().matmul(y));
    const double lost =
        (y - others.matmul(fit)).square().sum().item<double>() / y.square().sum().item<double>();
    // The damping of one per cent keeps it from being exact.
    EXPECT_NEAR(scores[channel].item<double>(), lost, 0.1 * lost + 0.02);
  }
}

}  // namespace
}  // namespace compress::testing
