// Tests of passes/prune/keep_n_of_m.

#include "passes/prune/keep_n_of_m.h"

#include "compress/error.h"
#include "tests/support/tensors.h"

#include <gmock/gmock.h>

#include <limits>
#include <utility>

namespace compress::testing {
namespace {

// The golden vector of SR-STE (Zhou et al., ICLR 2021): N = 2, M = 4.
TEST(KeepNOfM, MatchesTheGoldenVector) {
  const at::Tensor mask = keep_n_of_m(at::tensor({.9f, -.1f, .3f, -.7f}).view({1, 4}), 2, 4, 1);
  EXPECT_TRUE(at::equal(mask, bools({true, false, false, true}).view({1, 4})));
}

TEST(KeepNOfM, KeepsTheFirstOfEqualMagnitudes) {
  for (int64_t m : {2, 4, 8, 16}) {
    const at::Tensor mask = keep_n_of_m(at::ones({1, m}), m / 2, m, 1);
    EXPECT_TRUE(mask.narrow(1, 0, m / 2).all().item<bool>());
    EXPECT_FALSE(mask.narrow(1, m / 2, m / 2).any().item<bool>());
  }
}

TEST(KeepNOfM, EqualsStableSortingOfEachRun) {
  at::manual_seed(1);
  for (const auto& sizes :
       std::vector<std::vector<int64_t>>{{6, 16}, {5, 11}, {4, 8, 3, 3}, {2, 7, 5}}) {
    const at::Tensor x = at::randint(-9, 10, sizes, at::kFloat);
    for (int64_t m : {1, 2, 3, 4, 8, 16}) {
      for (int64_t n = 1; n <= m; n += 2) {
        for (int64_t dim : {0, 1}) {
          EXPECT_TRUE(at::equal(keep_n_of_m(x, n, m, dim), keep_n_of_m_reference(x, n, m, dim)))
              << n << ':' << m << " along " << dim << " of " << x.sizes();
        }
      }
    }
  }
}

TEST(KeepNOfM, RunsAlongTheChannelsOfEachKernelPosition) {
  at::manual_seed(2);
  const at::Tensor mask = keep_n_of_m(at::randn({8, 16, 3, 3}), 2, 4, 1);
  const at::Tensor kept = mask.view({8, 4, 4, 3, 3}).sum(2);
  EXPECT_TRUE((kept == 2).all().item<bool>());
}

TEST(KeepNOfM, KeepsAtMostNOfAShortRunAtTheEnd) {
  const at::Tensor mask = keep_n_of_m(at::arange(1, 8, at::kFloat).view({1, 7}), 2, 4, 1);
  EXPECT_TRUE(at::equal(mask.view({7}), bools({false, false, true, true, false, true, true})));
}

TEST(KeepNOfM, TakesNarrowTypesAndViews) {
  at::manual_seed(3);
  for (at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    const at::Tensor x = at::randn({12, 8}).to(dtype).t();
    for (const auto& [n, m] : {std::pair{2, 4}, std::pair{3, 8}, std::pair{1, 3}}) {
      EXPECT_TRUE(at::equal(keep_n_of_m(x, n, m, 1), keep_n_of_m_reference(x, n, m, 1)));
    }
    const at::Tensor wide = at::randint(-9, 10, {64, 640}).to(dtype);
    EXPECT_TRUE(at::equal(keep_n_of_m(wide, 2, 4, 1), keep_n_of_m_reference(wide, 2, 4, 1)));
    EXPECT_TRUE(at::equal(keep_n_of_m(wide, 5, 8, 1), keep_n_of_m_reference(wide, 5, 8, 1)));
  }
}

TEST(KeepNOfM, RefusesNanWhereverItStands) {
  for (at::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kFloat}) {
    for (int64_t m : {3, 4, 8}) {
      for (int64_t at : {0, 50, 95}) {
        at::Tensor x = at::ones({4, 24}).to(dtype);
        x.view(-1)[at] = -std::numeric_limits<double>::quiet_NaN();
        try {
          keep_n_of_m(x, 1, m, 1, "a.weight");
          FAIL() << "accepted";
        } catch (const Error& error) {
          EXPECT_EQ(error.where(), "a.weight");
          EXPECT_THAT(error.message(), ::testing::HasSubstr("NaN"));
        }
        x.fill_(std::numeric_limits<double>::infinity());
        keep_n_of_m(x, 1, m, 1);  // infinity is a magnitude like others
      }
    }
  }
}

}  // namespace
}  // namespace compress::testing
