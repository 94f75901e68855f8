// Grids by hand.

#include "passes/quantize/activation_grid.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>

namespace compress {
namespace {

void expect_grid(const ActivationGrid& grid, double scale, int64_t zero, int64_t first,
                 int64_t last) {
  EXPECT_FLOAT_EQ(static_cast<float>(grid.scale), static_cast<float>(scale));
  EXPECT_EQ(grid.zero_point, zero);
  EXPECT_EQ(grid.first, first);
  EXPECT_EQ(grid.last, last);
}

TEST(ActivationGrid, AffineCodesCoverTheRange) {
  // 2.55 in 255 steps of 0.01; zero stands 55 steps above the least.
  expect_grid(activation_grid({-0.55, 2.0}, {8, false, false}), 0.01, 55, 0, 255);
  expect_grid(activation_grid({-0.55, 2.0}, {8, false, true}), 0.01, 55 - 128, -128, 127);
  expect_grid(activation_grid({0, 1.5}, {4, false, false}), 0.1, 0, 0, 15);
  expect_grid(activation_grid({-1.5, 0}, {4, false, false}), 0.1, 15, 0, 15);
}

TEST(ActivationGrid, SymmetricCodesLieAroundTheMiddle) {
  expect_grid(activation_grid({-1.27, 0.3}, {8, true, true}), 0.01, 0, -128, 127);
  expect_grid(activation_grid({-1.27, 0.3}, {8, true, false}), 0.01, 128, 0, 255);
  expect_grid(activation_grid({0, 1.27}, {8, true, true}), 0.01, 0, -128, 127);
}

TEST(ActivationGrid, SymmetricCodesStartAtZeroWhereNothingIsNegative) {
  expect_grid(activation_grid({0, 2.55}, {8, true, false}), 0.01, 0, 0, 255);
}

TEST(ActivationGrid, TakesRangesWithoutAWidth) {
  expect_grid(activation_grid({0, 0}, {8, false, false}), 1, 0, 0, 255);
  expect_grid(activation_grid({0, 0}, {8, true, false}), 1, 0, 0, 255);
  expect_grid(activation_grid({0, 0}, {8, true, true}), 1, 0, -128, 127);
}

TEST(ActivationGrid, HasAScaleThatTheOperatorCanDivideBy) {
  const ActivationGrid grid = activation_grid({0, 1e-44}, {8, false, false});
  EXPECT_GE(grid.scale, FLT_MIN);
  EXPECT_TRUE(std::isfinite(1 / static_cast<float>(grid.scale)));
}

TEST(ActivationGrid, PutsZeroIntoARange) {
  EXPECT_EQ(Interval::with_zero(1, 2), (Interval{0, 2}));
  EXPECT_EQ(Interval::with_zero(-2, -1), (Interval{-2, 0}));
  EXPECT_EQ(Interval::with_zero(-2, 1), (Interval{-2, 1}));
}

}  // namespace
}  // namespace compress
