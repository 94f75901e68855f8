// Tests of passes/second_order/prune_columns.

#include "passes/second_order/prune_columns.h"

#include "tests/passes/second_order/reference.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

namespace compress::testing {
namespace {

PruneColumns blockwise(int64_t zeros, int64_t block = 128) {
  PruneColumns how;
  how.zeros = zeros;
  how.block = block;
  how.damping = 0;
  return how;
}
PruneColumns runs(int64_t n, int64_t m, int64_t positions = 1) {
  PruneColumns how;
  how.n = n;
  how.m = m;
  how.positions = positions;
  how.damping = 0;
  return how;
}

// What is left of a weight is the least-squares optimum for its zeros only where all zeros lie in
// front of it; going from left to right, that is so for the last column.
TEST(PruneColumns, FollowsTheReferenceForGivenZeros) {
  at::manual_seed(1);
  const at::Tensor weight = at::randn({6, 20}), gram = correlated_gram(20, 100, 1);
  const PrunedColumns found = prune_columns(weight, gram.unsqueeze(0), blockwise(60, 4));
  const at::Tensor expected = solve_reference(
      weight, gram, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19},
      [&](int64_t column, const at::Tensor& optimum) {
        return optimum * found.keep.select(1, column);
      });
  EXPECT_TRUE(at::allclose(found.weight.to(at::kDouble), expected, 0, 1e-5));
  EXPECT_NEAR(found.error, output_error(weight, expected, gram), 1e-5);
}

TEST(PruneColumns, ZeroesWhatCostsLeastInEachBlock) {
  // Without correlation the cost of a weight is its square times the mean square of its input.
  at::manual_seed(2);
  const at::Tensor weight = at::randn({7, 16}), power = at::rand({16}, at::kDouble) + 0.1;
  const PrunedColumns found = prune_columns(weight, at::diag(power).unsqueeze(0), blockwise(56, 8));
  for (const int64_t first : {0, 8}) {
    const at::Tensor cost = weight.to(at::kDouble).square().mul(power).narrow(1, first, 8);
    const at::Tensor threshold = std::get<0>(cost.flatten().sort())[27];
    EXPECT_TRUE(at::equal(found.keep.narrow(1, first, 8), cost > threshold));
  }
  EXPECT_TRUE(at::equal(found.weight, weight * found.keep));
}

TEST(PruneColumns, MakesExactlyTheZerosThatWereAsked) {
  at::manual_seed(3);
  const at::Tensor weight = at::randn({10, 50});
  const at::Tensor grams = at::stack({correlated_gram(50, 99, 1), correlated_gram(50, 99, 2)});
  const at::Tensor gone = at::zeros({10, 50}, at::kBool);
  for (const int64_t zeros : {0, 1, 77, 250, 499, 500}) {
    for (const int64_t block : {1, 7, 16, 128}) {
      const PrunedColumns found = prune_columns(weight, grams, blockwise(zeros, block));
      EXPECT_EQ(found.keep.logical_not().sum().item<int64_t>(), zeros);
      EXPECT_TRUE((found.weight.masked_select(found.keep.logical_not()) == 0).all().item<bool>());
    }
  }
}

TEST(PruneColumns, CountsAndKeepsTheZerosThatAreThere) {
  at::manual_seed(4);
  const at::Tensor keep = at::rand({12, 40}) > 0.4, weight = at::randn({12, 40}) * keep;
  const at::Tensor gram = correlated_gram(40, 99, 4).unsqueeze(0);
  const int64_t before = keep.logical_not().sum().item<int64_t>();
  const PrunedColumns more = prune_columns(weight, gram, blockwise(300, 8), keep);
  EXPECT_EQ(more.keep.logical_not().sum().item<int64_t>(), 300);
  EXPECT_FALSE(more.keep.logical_and(keep.logical_not()).any().item<bool>());
  const PrunedColumns none = prune_columns(weight, gram, blockwise(0), keep);
  EXPECT_TRUE(at::equal(none.keep, keep));
  EXPECT_EQ(none.keep.logical_not().sum().item<int64_t>(), before);
}

TEST(PruneColumns, SharesOutOnlyTheZerosThatAreMissing) {
  at::manual_seed(6);
  at::Tensor keep = at::ones({12, 40}, at::kBool);
  keep.narrow(1, 20, 20).fill_(false);  // blocks behind the first are gone already
  const at::Tensor weight = at::randn({12, 40}) * keep;
  const at::Tensor gram = correlated_gram(40, 99, 4).unsqueeze(0);
  for (const int64_t zeros : {240, 241, 300, 480}) {
    const PrunedColumns found = prune_columns(weight, gram, blockwise(zeros, 8), keep);
    EXPECT_EQ(found.keep.logical_not().sum().item<int64_t>(), zeros);
  }
}

TEST(PruneColumns, KeepsNOfMInputChannelsAtEachPosition) {
  at::manual_seed(5);
  for (const auto& [channels, positions, n, m] :
       std::vector<std::array<int64_t, 4>>{{16, 9, 2, 4}, {16, 1, 4, 8}, {10, 4, 1, 3}}) {
    const int64_t columns = channels * positions;
    const at::Tensor weight = at::randn({11, columns});
    const PrunedColumns found = prune_columns(
        weight, correlated_gram(columns, 3 * columns, m).unsqueeze(0), runs(n, m, positions));
    const at::Tensor kept = found.keep.view({11, channels, positions}).to(at::kLong);
    for (int64_t first = 0; first < channels; first += m) {
      const int64_t length = std::min(m, channels - first);
      const at::Tensor count = kept.narrow(1, first, length).sum(1);
      EXPECT_TRUE((count == std::min(n, length)).all().item<bool>());
    }
  }
}

TEST(PruneColumns, ErrsLessThanMagnitudeOfTheSameNumber) {
  at::manual_seed(6);
  const at::Tensor weight = at::randn({30, 64}), gram = correlated_gram(64, 300, 6, 0.1);
  for (const int64_t zeros : {400, 960}) {
    const PrunedColumns found = prune_columns(weight, gram.unsqueeze(0), blockwise(zeros, 16));
    const at::Tensor threshold = std::get<0>(weight.abs().flatten().sort())[zeros - 1];
    const at::Tensor magnitude = weight * (weight.abs() > threshold);
    EXPECT_LT(output_error(weight, found.weight, gram), output_error(weight, magnitude, gram));
  }
}

TEST(PruneColumns, GivesTheSameBytesForAnyNumberOfThreads) {
  at::manual_seed(7);
  const at::Tensor weight = at::randn({200, 150}), gram = correlated_gram(150, 400, 7).unsqueeze(0);
  const int threads = at::get_num_threads();
  for (const PruneColumns& how : {blockwise(15000), runs(2, 4)}) {
    at::set_num_threads(1);
    const PrunedColumns one = prune_columns(weight, gram, how);
    at::set_num_threads(3);
    const PrunedColumns three = prune_columns(weight, gram, how);
    at::set_num_threads(threads);
    EXPECT_TRUE(at::equal(one.weight, three.weight));
    EXPECT_TRUE(at::equal(one.keep, three.keep));
  }
}

}  // namespace
}  // namespace compress::testing
