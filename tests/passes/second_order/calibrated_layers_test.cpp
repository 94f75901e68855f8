// Tests of passes/second_order/calibrated_layers: what a layer would have to be on other inputs.

#include "passes/second_order/calibrated_layers.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

namespace compress::testing {
namespace {

struct Rows {
  at::Tensor x, z;  // [groups, rows, columns]: inputs now and before
  at::Tensor gram() const { return x.transpose(1, 2).matmul(x) / x.size(1); }
  at::Tensor cross() const { return z.transpose(1, 2).matmul(x) / x.size(1); }
};

Rows changed_inputs(int64_t groups) {
  at::manual_seed(3);
  const at::Tensor z = at::randn({groups, 60, 5}, at::kDouble);
  return {z + 0.3 * at::randn({groups, 60, 5}, at::kDouble), z};
}

TEST(WeightForInputs, SolvesTheLeastSquaresOfEachGroup) {
  const Rows rows = changed_inputs(2);
  const at::Tensor weight = at::randn({6, 5}, at::kDouble);
  const at::Tensor found = weight_for_inputs(weight, rows.gram(), rows.cross(), 0);
  for (int64_t g = 0; g < 2; ++g) {
    const at::Tensor target = rows.z[g].matmul(weight.narrow(0, 3 * g, 3).t());
    const at::Tensor expected = std::get<0>(at::linalg_lstsq(rows.x[g], target)).t();
    EXPECT_TRUE(at::allclose(found.narrow(0, 3 * g, 3), expected, 1e-6, 1e-6));
  }
}

TEST(WeightForInputs, ChangesNothingWhereInputsHaveNotChanged) {
  const Rows rows = changed_inputs(1);
  const at::Tensor weight = at::randn({4, 5}, at::kDouble);
  EXPECT_TRUE(at::allclose(weight_for_inputs(weight, rows.gram(), rows.gram(), 0.01), weight));
}

TEST(WeightForInputs, StaysNearTheWeightUnderAStrongRidge) {
  const Rows rows = changed_inputs(1);
  const at::Tensor weight = at::randn({4, 5}, at::kDouble);
  const auto distance = [&](double ridge) {
    return (weight_for_inputs(weight, rows.gram(), rows.cross(), ridge) - weight)
        .norm()
        .item<double>();
  };
  EXPECT_GT(distance(0), 1.5 * distance(1));
  EXPECT_LT(distance(1e6), 1e-4);
}

TEST(WeightForInputs, SolvesForFewerRowsThanColumns) {
  Rows rows = changed_inputs(1);
  rows = {rows.x.narrow(1, 0, 3), rows.z.narrow(1, 0, 3)};
  const at::Tensor weight = at::randn({4, 5}, at::kDouble);
  const at::Tensor found = weight_for_inputs(weight, rows.gram(), rows.cross(), 0);
  const at::Tensor wanted = rows.z[0].matmul(weight.t());
  EXPECT_TRUE(at::allclose(rows.x[0].matmul(found.t()), wanted, 1e-4, 1e-4));
}

TEST(WeightForInputs, TakesInputsThatAreAlwaysZero) {
  Rows rows = changed_inputs(1);
  rows.x.select(2, 1).zero_();  // as seen now; it was not before
  const at::Tensor weight = at::randn({4, 5}, at::kDouble);
  const at::Tensor found = weight_for_inputs(weight, rows.gram(), rows.cross(), 0.01);
  EXPECT_TRUE(found.isfinite().all().item<bool>());
  EXPECT_TRUE(at::allclose(found.select(1, 1), weight.select(1, 1)));
}

}  // namespace
}  // namespace compress::testing
