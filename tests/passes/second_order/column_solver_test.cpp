// Tests of passes/second_order/column_solver and column_factor.

#include "passes/second_order/column_solver.h"

#include "tests/passes/second_order/reference.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

namespace compress::testing {
namespace {

// Settles every column to whole numbers.
ColumnRule whole_numbers() {
  ColumnRule rule;
  rule.settle = [](int64_t, int64_t, const float* values, float* chosen) {
    for (int64_t lane = 0; lane < kFloatLanes; ++lane) chosen[lane] = std::nearbyint(values[lane]);
  };
  return rule;
}

TEST(ColumnFactor, IsTheInverseOfTheGoldenFactorOfTheInverse) {
  // The worked example of the quantize_columns test: H = 2 / 6 X X^T with 1 % damping, and the
  // upper Cholesky factor U of its inverse, computed in double precision.
  const at::Tensor x = at::tensor({1.,  .5, -.3, .8, -1., .2,  .9, .4,  -.2, .9,  -1.1, .1,
                                   -.5, 1., .7,  .2, .3,  -.8, .2, -.6, 1.,  -.4, .5,   .9},
                                  at::kDouble)
                           .view({4, 6});
  const at::Tensor gram = x.matmul(x.t()).mul(2. / 6);
  const ColumnFactor factor(gram, natural_order(4), 0.01);
  const at::Tensor u = at::tensor({5.214207, -5.053805, .221985, .041147, 0., 1.111079, .320048,
                                   .531726, 0., 0., 1.123095, .275687, 0., 0., 0., 1.064397},
                                  at::kDouble)
                           .view({4, 4});
  at::Tensor m = at::zeros({4, 4}, at::kDouble);
  for (int64_t j = 0; j < 4; ++j) {
    for (int64_t i = j; i < 4; ++i) m[j][i] = factor.ratio(j, i) * factor.pivot(i);
  }
  EXPECT_TRUE(at::allclose(m.matmul(u), at::eye(4, at::kDouble), 0, 1e-5));
}

TEST(ColumnFactor, RaisesDampingUntilTheMatrixIsNotSingular) {
  const at::Tensor gram = at::ones({8, 8}, at::kDouble);
  EXPECT_EQ(ColumnFactor(gram, natural_order(8), 0.01).damping(), 0.01);
  EXPECT_EQ(ColumnFactor(gram, natural_order(8), 0).damping(), 1e-6);
  EXPECT_NEAR(ColumnFactor(gram, natural_order(8), 1e-18).damping(), 1e-6, 1e-12);
}

TEST(ColumnFactor, FindsDeadColumns) {
  at::Tensor gram = correlated_gram(6, 30, 1);
  gram.select(0, 4).zero_();
  gram.select(1, 4).zero_();
  const ColumnFactor factor(gram, falling_diagonal_order(gram), 0);
  EXPECT_EQ(factor.dead(), (std::vector<int64_t>{4}));
  EXPECT_EQ(factor.order().back(), 4);
}

TEST(ColumnSolver, SettlesEachColumnAtTheLeastSquaresOptimum) {
  for (const auto& [rows, columns] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 5}, {40, 30}, {33, 67}}) {
    const at::Tensor gram = correlated_gram(columns, 4 * columns, columns);
    const at::Tensor weight = 3 * at::randn({rows, columns});
    const std::vector<int64_t> order = falling_diagonal_order(gram);
    const ColumnFactor factor(gram, order, 0);
    const at::Tensor expected = solve_reference(
        weight, gram, order, [](int64_t, const at::Tensor& w) { return w.round(); });
    for (const int64_t block : {1, 3, 4, 16, 128}) {
      const SolvedColumns solved =
          solve_columns(weight, factor, even_bounds(columns, block), whole_numbers());
      EXPECT_TRUE(at::equal(solved.weight.to(at::kDouble), expected)) << columns << ' ' << block;
      const double error = output_error(weight, expected, gram);
      EXPECT_NEAR(solved.error, error, 1e-5 * error);
    }
  }
}

TEST(ColumnSolver, ShowsABlockAtItsOptimum) {
  const int64_t rows = 35, columns = 22;
  const at::Tensor gram = correlated_gram(columns, 80, 3);
  const at::Tensor weight = at::randn({rows, columns});
  const ColumnFactor factor(gram, natural_order(columns), 0);
  const std::vector<int64_t> bounds{0, 6, 7, 15, 22};
  const at::Tensor chosen = solve_reference(weight, gram, natural_order(columns),
                                            [](int64_t, const at::Tensor& w) { return w.round(); });
  ColumnRule rule = whole_numbers();
  rule.begin_block = [&](const ColumnBlock& block) {
    if (block.first == 0) return;
    const at::Tensor all = at::arange(columns);
    const at::Tensor optimum =
        least_squares(weight.to(at::kDouble), chosen, gram, all.slice(0, 0, block.first),
                      all.slice(0, block.first));
    for (int64_t i = block.first; i < block.end; ++i) {
      for (int64_t row = 0; row < rows; ++row) {
        EXPECT_NEAR(block.lanes(row / kFloatLanes, i)[row % kFloatLanes],
                    optimum[row][i - block.first].item<double>(), 1e-4);
      }
    }
  };
  const SolvedColumns solved = solve_columns(weight, factor, bounds, rule);
  EXPECT_TRUE(at::equal(solved.weight.to(at::kDouble), chosen));
}

}  // namespace
}  // namespace compress::testing
