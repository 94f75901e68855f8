// Tests of passes/quantize/adaptive_rounding: vectors computed in double precision from the paper's
// formulas.

#include "passes/quantize/adaptive_rounding.h"

#include "tests/support/tensors.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <vector>

namespace compress {
namespace {

using testing::doubles;

TEST(AdaptiveRounding, StartsAtTheLogitOfTheFraction) {
  const at::Tensor logits = rounding_logits(doubles({0.25, 0.5, 0.75, 0.01}));
  const at::Tensor expected = doubles({-0.887303, 0, 0.887303, -2.293453});
  EXPECT_TRUE(at::allclose(logits, expected, 0, 1e-6)) << logits;
}

TEST(AdaptiveRounding, ComesBackToTheFraction) {
  const at::Tensor fractions = at::linspace(0, 0.999, 100, at::kDouble);
  EXPECT_TRUE(at::allclose(rectified_sigmoid(rounding_logits(fractions)), fractions, 0, 1e-12));
}

TEST(AdaptiveRounding, ReachesBothEnds) {
  const at::Tensor shares = rectified_sigmoid(doubles({-10, 10}));
  EXPECT_EQ(shares[0].item<double>(), 0);
  EXPECT_EQ(shares[1].item<double>(), 1);
}

TEST(AdaptiveRounding, PenaltyMatchesTheVectors) {
  struct Case {
    double share, beta, penalty;
  };
  for (const Case& c : std::vector<Case>{{0.25, 20, 0.999999},
                                         {0.25, 10, 0.999023},
                                         {0.25, 2, 0.75},
                                         {0.01, 20, 0.332392},
                                         {0.01, 10, 0.182927},
                                         {0.01, 2, 0.0396}}) {
    EXPECT_NEAR(rounding_penalty(doubles({c.share}), c.beta).item<double>(), c.penalty, 1e-6)
        << c.share << ' ' << c.beta;
  }
}

TEST(AdaptiveRounding, PenaltyIsZeroWhereAllIsDecided) {
  EXPECT_EQ(rounding_penalty(doubles({0, 1, 1}), 7).item<double>(), 0);
}

// 100 steps: nothing for 20, then from 20 down to 2 over the other 80.
TEST(AdaptiveRounding, SchedulesThePenalty) {
  const PenaltySchedule schedule;
  EXPECT_FALSE(schedule.is_on(19, 100));
  EXPECT_TRUE(schedule.is_on(20, 100));
  EXPECT_DOUBLE_EQ(schedule.beta(20, 100), 20);
  EXPECT_DOUBLE_EQ(schedule.beta(60, 100), 11);
  EXPECT_DOUBLE_EQ(schedule.beta(100, 100), 2);
}

}  // namespace
}  // namespace compress
