// Tests of passes/second_order/cholesky.

#include "passes/second_order/cholesky.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gtest/gtest.h>

namespace compress::testing {
namespace {

at::Tensor positive_matrix(int64_t size) {
  at::manual_seed(size);
  const at::Tensor x = at::randn({size, 2 * size}, at::kDouble);
  return x.matmul(x.t()).div(static_cast<double>(size));
}

CholeskyFactor upper(const at::Tensor& matrix) {
  CholeskyFactor factor(matrix.size(0));
  const auto in = matrix.accessor<double, 2>();
  for (int64_t row = 0; row < matrix.size(0); ++row) {
    for (int64_t column = row; column < matrix.size(0); ++column) {
      factor.at(row, column) = in[row][column];
    }
  }
  return factor;
}

at::Tensor dense(const CholeskyFactor& factor) {
  at::Tensor matrix = at::zeros({factor.size(), factor.size()}, at::kDouble);
  auto out = matrix.accessor<double, 2>();
  for (int64_t row = 0; row < factor.size(); ++row) {
    for (int64_t column = row; column < factor.size(); ++column) {
      out[row][column] = factor.at(row, column);
    }
  }
  return matrix;
}

TEST(CholeskyFactor, TimesItsTransposeIsTheMatrix) {
  for (const int64_t size : {1, 2, 15, 16, 17, 63, 64, 65, 200, 333}) {
    const at::Tensor matrix = positive_matrix(size);
    CholeskyFactor factor = upper(matrix);
    ASSERT_TRUE(factor.factor()) << size;
    const at::Tensor r = dense(factor);
    EXPECT_TRUE(at::allclose(r.t().matmul(r), matrix, 1e-12, 1e-12)) << size;
  }
}

TEST(CholeskyFactor, SolvesWhatItFactorised) {
  for (const int64_t size : {1, 20, 130}) {
    const at::Tensor matrix = positive_matrix(size);
    CholeskyFactor factor = upper(matrix);
    ASSERT_TRUE(factor.factor());
    const at::Tensor x = at::randn({size}, at::kDouble);
    at::Tensor b = matrix.mv(x);
    factor.solve(b.mutable_data_ptr<double>());
    EXPECT_TRUE(at::allclose(b, x, 1e-8, 1e-8)) << size;
  }
}

TEST(CholeskyFactor, GivesTheSameBytesForAnyNumberOfThreads) {
  const at::Tensor matrix = positive_matrix(500);
  const int threads = at::get_num_threads();
  CholeskyFactor one = upper(matrix), three = upper(matrix);
  at::set_num_threads(1);
  one.factor();
  at::set_num_threads(3);
  three.factor();
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(dense(one), dense(three)));
}

TEST(CholeskyFactor, RefusesWhatIsNotPositiveDefinite) {
  for (const int64_t size : {2, 40, 100}) {
    at::Tensor matrix = positive_matrix(size);
    matrix.select(0, size - 1).copy_(matrix.select(0, 0));  // a row twice: singular
    matrix.select(1, size - 1).copy_(matrix.select(1, 0).clone());
    matrix[size - 1][size - 1] = matrix[0][0];
    CholeskyFactor singular = upper(matrix);
    EXPECT_FALSE(singular.factor()) << size;
    matrix[size - 1][size - 1] = NAN;
    CholeskyFactor damaged = upper(matrix);
    EXPECT_FALSE(damaged.factor()) << size;
  }
}

}  // namespace
}  // namespace compress::testing
