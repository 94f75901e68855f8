// Tests of passes/second_order/prune_exactly.

#include "passes/second_order/prune_exactly.h"

#include "tests/passes/second_order/reference.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <utility>
#include <vector>

namespace compress::testing {
namespace {

PruneColumns share(int64_t zeros) {
  PruneColumns how;
  how.zeros = zeros;
  how.damping = 0;
  return how;
}

// The weights of one row with the columns of `removed` at zero, refitted by least squares, and what
// that costs.
at::Tensor refit(const at::Tensor& row, const at::Tensor& gram, const std::vector<int64_t>& removed,
                 double* cost) {
  at::Tensor zeroed = row.clone();
  std::vector<int64_t> left;
  std::vector<bool> gone(row.numel(), false);
  for (const int64_t column : removed) {
    zeroed[0][column] = 0;
    gone[column] = true;
  }
  for (int64_t i = 0; i < row.numel(); ++i) {
    if (!gone[i]) left.push_back(i);
  }
  if (!left.empty() && !removed.empty()) {
    const at::Tensor fitted =
        least_squares(row, zeroed, gram, at::tensor(removed), at::tensor(left));
    zeroed.index_copy_(1, at::tensor(left), fitted);
  }
  *cost = output_error(row, zeroed, gram);
  return zeroed;
}

// Each step tries all removals that `may_go` allows; returns the columns in their order.
std::vector<int64_t> greedy_reference(
    const at::Tensor& row, const at::Tensor& gram, int64_t count,
    const std::function<bool(const std::vector<int64_t>&, int64_t)>& may_go, double* cost) {
  std::vector<int64_t> removed;
  for (int64_t step = 0; step < count; ++step) {
    double least = 1e300;
    int64_t best = -1;
    for (int64_t column = 0; column < row.numel(); ++column) {
      if (std::count(removed.begin(), removed.end(), column) > 0) continue;
      if (!may_go(removed, column)) continue;
      std::vector<int64_t> tried = removed;
      tried.push_back(column);
      double now;
      refit(row, gram, tried, &now);
      if (now < least) {
        least = now;
        best = column;
      }
    }
    removed.push_back(best);
    *cost = least;
  }
  return removed;
}

// A worked example of Optimal Brain Surgeon, computed by hand in double precision.
TEST(PruneExactly, MatchesTheGoldenVector) {
  const at::Tensor gram =
      at::tensor({2., .5, .1, .5, 1., .3, .1, .3, 1.5}, at::kDouble).view({1, 3, 3});
  const at::Tensor weight = at::tensor({1.f, .5f, -.8f}).view({1, 3});
  const PrunedColumns one = prune_exactly(weight, gram, share(1));
  EXPECT_TRUE(
      at::allclose(one.weight, at::tensor({1.120401f, 0.f, -.708027f}).view({1, 3}), 0, 1e-6));
  EXPECT_NEAR(one.error / 2, .103052, 1e-6);
  const PrunedColumns two = prune_exactly(weight, gram, share(2));
  EXPECT_TRUE(at::allclose(two.weight, at::tensor({1.085f, 0.f, 0.f}).view({1, 3}), 0, 1e-6));
  EXPECT_NEAR(two.error / 2, .477775, 1e-6);
}

TEST(PruneExactly, RemovesWhatABruteForceSearchRemoves) {
  const at::Tensor gram = correlated_gram(9, 40, 1);
  for (int64_t seed = 0; seed < 3; ++seed) {
    at::manual_seed(seed);
    const at::Tensor weight = at::randn({1, 9});
    for (const int64_t zeros : {1, 4, 8}) {
      double cost = 0;
      const std::vector<int64_t> removed = greedy_reference(
          weight.to(at::kDouble), gram, zeros,
          [](const std::vector<int64_t>&, int64_t) { return true; }, &cost);
      const PrunedColumns found = prune_exactly(weight, gram.unsqueeze(0), share(zeros));
      const at::Tensor expected = refit(weight.to(at::kDouble), gram, removed, &cost);
      EXPECT_TRUE(at::allclose(found.weight.to(at::kDouble), expected, 1e-4, 1e-5));
      EXPECT_NEAR(found.error, cost, 1e-5 * cost);
    }
  }
}

TEST(PruneExactly, LeavesNOfEveryRunAsABruteForceSearchDoes) {
  const int64_t channels = 4, positions = 2;
  const at::Tensor gram = correlated_gram(channels * positions, 40, 2);
  at::manual_seed(2);
  const at::Tensor weight = at::randn({1, channels * positions});
  PruneColumns how;
  how.n = 1;
  how.m = 2;
  how.positions = positions;
  how.damping = 0;
  const auto run_of = [&](int64_t column) {
    return std::pair(column / positions / 2, column % positions);
  };
  double cost = 0;
  const std::vector<int64_t> removed = greedy_reference(
      weight.to(at::kDouble), gram, 4,
      [&](const std::vector<int64_t>& gone, int64_t column) {
        return std::none_of(gone.begin(), gone.end(),
                            [&](int64_t other) { return run_of(other) == run_of(column); });
      },
      &cost);
  const PrunedColumns found = prune_exactly(weight, gram.unsqueeze(0), how);
  const at::Tensor expected = refit(weight.to(at::kDouble), gram, removed, &cost);
  EXPECT_TRUE(at::allclose(found.weight.to(at::kDouble), expected, 1e-4, 1e-5));
}

TEST(PruneExactly, MakesTheCheapestRemovalsOfAllRows) {
  // Without correlation the cheapest removals are the smallest products of square and power.
  at::manual_seed(3);
  const at::Tensor weight = at::randn({6, 10}), power = at::rand({10}, at::kDouble) + 0.1;
  const PrunedColumns found = prune_exactly(weight, at::diag(power).unsqueeze(0), share(23));
  const at::Tensor cost = weight.to(at::kDouble).square().mul(power);
  const at::Tensor threshold = std::get<0>(cost.flatten().sort())[22];
  EXPECT_TRUE(at::equal(found.keep, cost > threshold));
  EXPECT_TRUE(at::equal(found.weight, weight * found.keep));
}

TEST(PruneExactly, CountsAndKeepsTheZerosThatAreThere) {
  at::manual_seed(4);
  const at::Tensor keep = at::rand({8, 30}) > 0.4, weight = at::randn({8, 30}) * keep;
  const at::Tensor grams = at::stack({correlated_gram(30, 99, 1), correlated_gram(30, 99, 2)});
  const PrunedColumns more = prune_exactly(weight, grams, share(150), keep);
  EXPECT_EQ(more.keep.logical_not().sum().item<int64_t>(), 150);
  EXPECT_FALSE(more.keep.logical_and(keep.logical_not()).any().item<bool>());
  EXPECT_TRUE(at::equal(prune_exactly(weight, grams, share(0), keep).keep, keep));
}

TEST(PruneExactly, ErrsLessThanOneOrderForAllRows) {
  at::manual_seed(5);
  const at::Tensor weight = at::randn({20, 40}),
                   gram = correlated_gram(40, 200, 5, 0.1).unsqueeze(0);
  for (const int64_t zeros : {200, 400, 640}) {
    const PrunedColumns found = prune_exactly(weight, gram, share(zeros));
    EXPECT_NEAR(found.error, output_error(weight, found.weight, gram[0]), 1e-4 * found.error);
    EXPECT_LT(found.error, prune_columns(weight, gram, share(zeros)).error);
  }
}

TEST(PruneExactly, GivesTheSameBytesForAnyNumberOfThreads) {
  at::manual_seed(6);
  const at::Tensor weight = at::randn({40, 70}), gram = correlated_gram(70, 200, 6).unsqueeze(0);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const PrunedColumns one = prune_exactly(weight, gram, share(1500));
  at::set_num_threads(3);
  const PrunedColumns three = prune_exactly(weight, gram, share(1500));
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.weight, three.weight));
}

}  // namespace
}  // namespace compress::testing
