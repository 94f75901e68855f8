// Tests of passes/prune/keep_largest.

#include "passes/prune/keep_largest.h"

#include "compress/error.h"
#include "tests/support/tensors.h"

#include <ATen/Parallel.h>

#include <gmock/gmock.h>

#include <limits>

namespace compress::testing {
namespace {

int64_t count(const std::vector<at::Tensor>& masks) {
  int64_t kept = 0;
  for (const at::Tensor& mask : masks) kept += mask.sum().item<int64_t>();
  return kept;
}

TEST(KeptCount, RoundsHalfToEvenAndKeepsOneAtLeast) {
  EXPECT_EQ(kept_count(4, 0.5), 2);
  EXPECT_EQ(kept_count(5, 0.5), 2);
  EXPECT_EQ(kept_count(7, 0.5), 4);
  EXPECT_EQ(kept_count(1000, 0.999), 1);
  EXPECT_EQ(kept_count(1000, 1.0), 1);
  EXPECT_EQ(kept_count(1000, 0.0), 1000);
  EXPECT_EQ(kept_count(0, 0.5), 0);
}

TEST(KeepLargest, KeepsThoseOfLargestMagnitudeWhateverTheirSign) {
  const auto masks = keep_largest({at::tensor({1.f, -4.f, 3.f, -2.f}).view({2, 2})}, 2);
  EXPECT_TRUE(at::equal(masks[0], bools({false, true, true, false}).view({2, 2})));
}

TEST(KeepLargest, KeepsTheFirstOfEqualMagnitudes) {
  const auto masks = keep_largest({at::tensor({1.f, -1.f, 2.f}), at::tensor({1.f, -0.f, 1.f})}, 3);
  EXPECT_TRUE(at::equal(masks[0], bools({true, true, true})));
  EXPECT_TRUE(at::equal(masks[1], bools({false, false, false})));
}

TEST(KeepLargest, EqualsAStableSortOnSmallTensors) {
  at::manual_seed(1);
  for (int64_t size : {1, 2, 63, 64, 65, 1000}) {
    for (int levels : {1, 3, 1000000}) {
      const at::Tensor x = at::randint(-levels, levels + 1, {size}, at::kFloat) / levels;
      const at::Tensor y = at::randint(-levels, levels + 1, {3, 5}, at::kFloat) / levels;
      for (int64_t k : {int64_t{0}, int64_t{1}, size / 2, size, size + 15}) {
        expect_same(keep_largest({x, y}, k), keep_largest_reference({x, y}, k));
      }
    }
  }
}

// Above 2^18 elements a sample bounds the threshold; the cases that mislead it follow.
TEST(KeepLargest, EqualsAStableSortOnLargeTensors) {
  at::manual_seed(2);
  const at::Tensor normal = at::randn({700, 600});
  const at::Tensor small = at::randn({300}) * 1e-3;
  for (double share : {1e-6, 0.001, 0.1, 0.5, 0.9, 0.999999}) {
    const auto k = static_cast<int64_t>(share * (normal.numel() + small.numel()));
    expect_same(keep_largest({small, normal}, k), keep_largest_reference({small, normal}, k));
  }
}

TEST(KeepLargest, SurvivesValuesThatMisleadASample) {
  at::manual_seed(3);
  std::vector<at::Tensor> cases = {
      at::zeros({400000}),                            // all equal
      at::randn({400000}).sign(),                     // one magnitude
      at::randn({400000}).clamp_min(0),               // half of them zero
      at::cat({at::zeros({399999}), at::ones({1})}),  // one that matters
      at::arange(400000, at::kFloat),                 // sorted
      at::randn({400000}) * 1e-42,                    // denormal
      at::full({400000}, std::numeric_limits<float>::infinity())};
  for (const at::Tensor& x : cases) {
    for (int64_t k : {0, 1, 1000, 150000, 200001, 399999, 400000}) {
      expect_same(keep_largest({x}, k), keep_largest_reference({x}, k));
    }
  }
}

TEST(KeepLargest, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(4);
  const at::Tensor x = at::randint(-50, 51, {600000}, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = keep_largest({x}, 300000);
  at::set_num_threads(3);
  expect_same(one, keep_largest({x}, 300000));
  at::set_num_threads(threads);
  EXPECT_EQ(count(one), 300000);
}

TEST(KeepLargest, TakesEveryFloatingType) {
  at::manual_seed(5);
  for (at::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kFloat, at::kDouble}) {
    const at::Tensor x = at::randn({40, 30}).to(dtype).t();
    expect_same(keep_largest({x}, 500), keep_largest_reference({x}, 500));
  }
}

// 16-bit floats alone are compared as they are; coarse as they are, many are equal.
TEST(KeepLargest, EqualsAStableSortOnLargeTensorsOfNarrowTypes) {
  at::manual_seed(6);
  for (at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    const at::Tensor normal = at::randn({700, 600}).to(dtype), small = at::randn({300}).to(dtype);
    const at::Tensor sparse = at::randn({400000}).clamp_min(1).sub(1).to(dtype);
    const at::Tensor infinite = at::full({400000}, std::numeric_limits<float>::infinity(), dtype);
    for (double share : {0.0, 1e-6, 0.1, 0.5, 0.9, 0.999999, 1.0}) {
      for (const at::Tensor& x : {normal, sparse, infinite}) {
        const auto k = static_cast<int64_t>(share * static_cast<double>(x.numel() + small.numel()));
        expect_same(keep_largest({small, x}, k), keep_largest_reference({small, x}, k));
        expect_same(keep_largest({small.to(at::kFloat), x}, k),
                    keep_largest_reference({small, x}, k));
      }
    }
  }
}

TEST(KeepLargest, RefusesNanByName) {
  for (at::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kFloat, at::kDouble}) {
    at::Tensor x = at::ones({5}, dtype);
    x[3] = std::numeric_limits<double>::quiet_NaN();
    try {
      keep_largest({at::ones({2}, dtype), x}, 2, {"a.weight", "b.weight"});
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.where(), "b.weight");
      EXPECT_THAT(error.message(), ::testing::HasSubstr("1 of 5 weights are NaN"));
    }
  }
}

}  // namespace
}  // namespace compress::testing
