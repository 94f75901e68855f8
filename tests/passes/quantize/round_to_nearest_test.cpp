// Tests of passes/quantize/round_to_nearest.

#include "passes/quantize/round_to_nearest.h"

#include "compress/encoding_bits.h"
#include "compress/error.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gmock/gmock.h>

#include <limits>

namespace compress {
namespace {

at::Tensor codes_of(const QuantizedTensor& quantized) {
  return unpack_codes(quantized.fields, quantized.bits, quantized.columns());
}

void expect_same(const QuantizedTensor& a, const QuantizedTensor& b) {
  EXPECT_TRUE(at::equal(codes_of(a), codes_of(b)));
  EXPECT_TRUE(at::equal(a.scale, b.scale));
  ASSERT_EQ(a.symmetric(), b.symmetric());
  EXPECT_TRUE(a.symmetric() || at::equal(a.zero_point, b.zero_point));
  for (size_t i = 0; i < a.fields.size(); ++i) EXPECT_TRUE(at::equal(a.fields[i], b.fields[i]));
}

std::vector<Granularity> granularities() {
  return {Granularity::tensor(), Granularity::channel(), Granularity::group(8),
          Granularity::group(7), Granularity::group(1000)};
}

// By hand: max 2.1, min -0.9, 4 bits: scale 0.2, zero_point round(4.5) = 4 (half to even).
TEST(RoundToNearest, AffineMatchesAHandComputedRow) {
  const at::Tensor x = at::tensor({-0.875f, 0.f, 0.25f, 1.0f, 2.125f}).view({1, 5});
  RoundToNearest how{.bits = 4, .symmetric = false};
  const QuantizedTensor q = round_to_nearest(x, 0, how);
  // scale 3/15 = 0.2 and -min/scale = 4.375, so zero_point 4
  EXPECT_FLOAT_EQ(q.scale.item<float>(), 0.2f);
  EXPECT_EQ(q.zero_point.item<int>(), 4);
  EXPECT_TRUE(at::equal(codes_of(q), at::tensor({0, 4, 5, 9, 15}).view({1, 5}).to(at::kByte)));
  EXPECT_TRUE(at::allclose(dequantize(q), at::tensor({-.8f, 0.f, .2f, 1.f, 2.2f}).view({1, 5})));
}

TEST(RoundToNearest, SymmetricMatchesAHandComputedRow) {
  const at::Tensor x = at::tensor({-1.75f, 0.f, 0.625f, 0.875f, 1.f}).view({1, 5});
  const QuantizedTensor q = round_to_nearest(x, 0, {.bits = 4, .symmetric = true});
  EXPECT_EQ(q.scale.item<float>(), 0.25f);  // 1.75 / 7; 2.5 and 3.5 steps go to the even 2 and 4
  EXPECT_TRUE(at::equal(codes_of(q), at::tensor({1, 8, 10, 12, 12}).view({1, 5}).to(at::kByte)));
}

TEST(RoundToNearest, EqualsTheReferenceForEveryWidthGridAndGranularity) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({5, 37}) * at::rand({5, 1}).add(0.1);
  for (int bits = 2; bits <= 8; ++bits) {
    for (bool symmetric : {true, false}) {
      for (const Granularity& granularity : granularities()) {
        const RoundToNearest how{bits, symmetric, granularity};
        expect_same(round_to_nearest(x, 0, how), round_to_nearest_reference(x, 0, how));
      }
    }
  }
}

TEST(RoundToNearest, EqualsTheReferenceForPercentiles) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({4, 3, 5, 5});
  for (bool symmetric : {true, false}) {
    for (const Granularity& granularity : granularities()) {
      const RoundToNearest how{4, symmetric, granularity, RangeMethod::kPercentile, 95};
      expect_same(round_to_nearest(x, 0, how), round_to_nearest_reference(x, 0, how));
    }
  }
}

// Sums of errors in float may order two almost equal candidates otherwise than sums in double, so
// only the error itself is compared: 1e-5 is some hundred roundings of 2^-24.
TEST(RoundToNearest, FindsTheLeastSquaredErrorOfAllShrunkRanges) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({6, 100}).pow(3);
  for (bool symmetric : {true, false}) {
    for (const Granularity& granularity : granularities()) {
      const RoundToNearest mse{3, symmetric, granularity, RangeMethod::kMse};
      const auto error = [&](const QuantizedTensor& q) {
        return (dequantize(q) - x).square().sum().item<double>();
      };
      const double found = error(round_to_nearest(x, 0, mse));
      EXPECT_NEAR(found, error(round_to_nearest_reference(x, 0, mse)), 1e-5 * found);
      EXPECT_LT(found, error(round_to_nearest(x, 0, {3, symmetric, granularity})));
    }
  }
}

TEST(RoundToNearest, KeepsZerosExactlyZero) {
  at::manual_seed(4);
  const at::Tensor x = (at::randn({8, 40}) + 0.7) * (at::rand({8, 40}) > 0.5);
  for (int bits = 2; bits <= 8; ++bits) {
    for (bool symmetric : {true, false}) {
      const at::Tensor decoded = dequantize(round_to_nearest(x, 0, {bits, symmetric}));
      EXPECT_EQ((decoded.index({x == 0}) != 0).sum().item<int64_t>(), 0);
    }
  }
}

// Half a step is the bound of rounding; a zero point that is rounded itself costs another half.
TEST(RoundToNearest, IsOffByHalfAStepAtMost) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({8, 100});
  for (int bits = 2; bits <= 8; ++bits) {
    for (bool symmetric : {true, false}) {
      const QuantizedTensor q = round_to_nearest(x, 0, {bits, symmetric});
      const at::Tensor steps = (dequantize(q) - x).abs() / q.scale;
      EXPECT_LE(steps.max().item<float>(), (symmetric ? 0.5f : 1.0f) + 1e-4f) << bits;
    }
  }
}

TEST(RoundToNearest, TakesRowsWithoutAnything) {
  at::Tensor x = at::zeros({3, 6});
  x[1] = 1e-44f;  // denormal
  for (bool symmetric : {true, false}) {
    const QuantizedTensor q = round_to_nearest(x, 0, {4, symmetric});
    EXPECT_TRUE((q.scale > 0).all().item<bool>());
    EXPECT_TRUE((dequantize(q)[0] == 0).all().item<bool>());
    EXPECT_TRUE(at::isfinite(dequantize(q)).all().item<bool>());
  }
}

TEST(RoundToNearest, TakesTheWidestRange) {
  const float most = std::numeric_limits<float>::max() / 2;  // half a step beyond must be finite
  const QuantizedTensor q = round_to_nearest(at::tensor({-most, most}).view({1, 2}), 0, {4, false});
  EXPECT_TRUE(at::isfinite(dequantize(q)).all().item<bool>());
}

TEST(RoundToNearest, GivesEachColumnOfATransposedWeightItsScale) {
  at::manual_seed(6);
  const at::Tensor x = at::randn({4, 6, 3, 3});
  const QuantizedTensor q = round_to_nearest(x, 1, {8, true});
  EXPECT_EQ(q.scale.sizes(), (std::vector<int64_t>{6, 1}));
  const at::Tensor straight =
      dequantize(round_to_nearest(x.transpose(0, 1).contiguous(), 0, {8, true}));
  EXPECT_TRUE(at::equal(dequantize(q), straight.transpose(0, 1)));
}

TEST(RoundToNearest, KeepsTheTypeOfTheWeight) {
  const QuantizedTensor q = round_to_nearest(at::randn({4, 4}).to(at::kBFloat16), 0, {4, true});
  EXPECT_EQ(dequantize(q).scalar_type(), at::kBFloat16);
}

TEST(RoundToNearest, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(7);
  const at::Tensor x = at::randn({64, 1024});
  const int threads = at::get_num_threads();
  const RoundToNearest how{4, false, Granularity::group(128), RangeMethod::kMse};
  at::set_num_threads(1);
  const QuantizedTensor one = round_to_nearest(x, 0, how);
  at::set_num_threads(3);
  expect_same(one, round_to_nearest(x, 0, how));
  at::set_num_threads(threads);
}

TEST(RoundToNearest, RefusesWhatIsNotFiniteByName) {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (const Granularity& granularity : granularities()) {
      at::Tensor x = at::ones({3, 20});
      x[2][19] = bad;
      try {
        round_to_nearest(x, 0, {4, true, granularity}, "fc.weight");
        FAIL() << "accepted " << bad;
      } catch (const Error& error) {
        EXPECT_EQ(error.where(), "fc.weight");
      }
    }
  }
}

}  // namespace
}  // namespace compress
