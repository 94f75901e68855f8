// Tests of passes/second_order/allocate_zeros.

#include "passes/second_order/allocate_zeros.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace compress::testing {
namespace {

TEST(AllocateZeros, EqualsAnExhaustiveSearchOverConvexCurves) {
  const std::vector<LossCurve> curves{{{0, 1, 2, 3, 4}, {0, .1, .5, 2, 9}},
                                      {{0, 1, 2, 3}, {0, .3, .7, 1.2}},
                                      {{0, 1, 2}, {0, 4, 9}}};
  for (int64_t zeros = 0; zeros <= 9; ++zeros) {
    double least = 1e9;
    for (size_t a = 0; a < 5; ++a) {
      for (size_t b = 0; b < 4; ++b) {
        for (size_t c = 0; c < 3; ++c) {
          if (static_cast<int64_t>(a + b + c) != zeros) continue;
          least = std::min(least, curves[0].losses[a] + curves[1].losses[b] + curves[2].losses[c]);
        }
      }
    }
    const std::vector<int64_t> given = allocate_zeros(curves, zeros);
    EXPECT_EQ(given[0] + given[1] + given[2], zeros);
    double loss = 0;
    for (size_t i = 0; i < 3; ++i) loss += curves[i].losses[given[i]];
    EXPECT_NEAR(loss, least, 1e-12);
  }
}

TEST(AllocateZeros, PassesOverPointsAboveTheHull) {
  // The middle of the first curve is dear, its end is not.
  const std::vector<LossCurve> curves{{{0, 10, 20}, {0, 5, 6}}, {{0, 20}, {0, 8}}};
  EXPECT_EQ(allocate_zeros(curves, 20), (std::vector<int64_t>{20, 0}));
  EXPECT_EQ(allocate_zeros(curves, 25), (std::vector<int64_t>{20, 5}));
}

TEST(AllocateZeros, GivesNoMoreThanTheCurvesReach) {
  EXPECT_EQ(allocate_zeros({{{0, 3}, {0, 1}}, {{0}, {0}}}, 9), (std::vector<int64_t>{3, 0}));
}

}  // namespace
}  // namespace compress::testing
