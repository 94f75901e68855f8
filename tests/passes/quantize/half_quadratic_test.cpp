// Tests of passes/quantize/half_quadratic.

#include "passes/quantize/half_quadratic.h"

#include "compress/encoding_bits.h"
#include "passes/quantize/round_to_nearest.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;

const std::vector<double> kGroup = {-.62, -.11, .03, .09, .18, .27, .33, 1.45};

at::Tensor group() { return at::tensor(kGroup).to(at::kFloat).view({1, -1}); }

HalfQuadratic two_bits(int iterations) {
  return {.bits = 2, .group_size = 8, .iterations = iterations, .half_scales = false};
}

at::Tensor unpacked(const QuantizedTensor& q) {
  return unpack_codes(q.fields, q.bits, q.columns());
}

// Laplace with a few outliers: what the method is for.
at::Tensor heavy_tailed() {
  at::manual_seed(1);
  const at::Tensor x = at::randn({64, 256}) * at::rand({64, 256}).neg().exp();
  return at::where(at::rand({64, 256}).lt(.01), x * 6, x) * .05;
}

double error(const at::Tensor& x, const QuantizedTensor& q, double norm) {
  return (dequantize(q) - x).abs().to(at::kDouble).pow(norm).mean().item<double>();
}

// The worked example, in double precision: sigma = 3 / 2.07, z = 0.62 sigma, then two steps.
TEST(HalfQuadraticSolver, FollowsTheGoldenVector) {
  const QuantizedTensor start = half_quadratic(group(), 0, two_bits(0));
  EXPECT_NEAR(start.scale.item<double>(), 1 / 1.449275, 1e-6);
  EXPECT_NEAR(start.zero_point.item<double>(), .898551, 1e-6);
  EXPECT_TRUE(
      at::equal(unpacked(start), at::tensor({0, 1, 1, 1, 1, 1, 1, 3}).to(at::kByte).view({1, 8})));
  EXPECT_NEAR(error(group(), start, 1), .101250, 1e-6);
  const QuantizedTensor one = half_quadratic(group(), 0, two_bits(1));
  EXPECT_NEAR(one.zero_point.item<double>(), .856052, 1e-6);
  EXPECT_NEAR(error(group(), one, 1), .103581, 1e-6);
  const QuantizedTensor last = half_quadratic(group(), 0, two_bits(20));
  EXPECT_NEAR(last.zero_point.item<double>(), .836351, 1e-6);
}

// One group after the other, one element after the other, in double precision.
double zero_point_reference(const std::vector<double>& x, const HalfQuadratic& how) {
  const double last = (1 << how.bits) - 1, low = *std::min_element(x.begin(), x.end());
  const double range = *std::max_element(x.begin(), x.end()) - low;
  const double steps = range <= 1e-4 ? 1 : std::min(last / range, 2e4);
  double zero = -low * steps, least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < how.iterations; ++i) {
    double next = 0, mean = 0;
    for (const double value : x) {
      const double code = std::clamp(std::nearbyint(value * steps + zero), 0.0, last);
      const double off = value - (code - zero) / steps;
      const double kept =
          std::max(0.0, std::abs(off) - std::pow(std::abs(off), how.norm - 1) / how.beta);
      next += code - (value - std::copysign(kept, off)) * steps;
      mean += std::abs(off);
    }
    zero = next / static_cast<double>(x.size());
    if (mean >= least) break;
    least = mean;
  }
  return zero;
}

TEST(HalfQuadraticSolver, AgreesWithTheReferenceInEveryGroup) {
  const at::Tensor x = heavy_tailed().narrow(1, 0, 50);
  const HalfQuadratic how{.bits = 3, .group_size = 16, .half_scales = false};
  const QuantizedTensor q = half_quadratic(x, 0, how);
  ASSERT_EQ(q.groups(), 4);  // the last one of two columns
  int64_t apart = 0;
  for (int64_t row = 0; row < x.size(0); ++row) {
    for (int64_t g = 0; g < 4; ++g) {
      const at::Tensor part = x[row].slice(0, g * 16, std::min<int64_t>(50, g * 16 + 16));
      std::vector<double> values;
      for (int64_t i = 0; i < part.size(0); ++i) values.push_back(part[i].item<double>());
      const double found = q.zero_point[row][g].item<double>();
      // A weight halfway between two codes may fall either way in float.
      apart += std::abs(found - zero_point_reference(values, how)) > 1e-3;
    }
  }
  EXPECT_LE(apart, 5);
}

TEST(HalfQuadraticSolver, MakesTheOutlierTolerantErrorSmallerThanRounding) {
  const at::Tensor x = heavy_tailed();
  for (const int bits : {2, 3, 4}) {
    const QuantizedTensor q = half_quadratic(x, 0, {.bits = bits});
    const QuantizedTensor rounded = round_to_nearest(x, 0, {bits, false, Granularity::group(64)});
    EXPECT_LT(error(x, q, .7), error(x, rounded, .7)) << bits;
  }
}

TEST(HalfQuadraticSolver, StoresScalesInSixteenBitsAndCodesForThem) {
  const at::Tensor x = heavy_tailed();
  const QuantizedTensor q = half_quadratic(x, 0, {.bits = 8});
  EXPECT_EQ(q.scale.scalar_type(), at::kHalf);
  EXPECT_EQ(q.zero_point.scalar_type(), at::kHalf);
  EXPECT_EQ(q.bits_on_disk(), x.numel() * 8 + x.numel() / 64 * 32);
  const at::Tensor step = q.scale.to(at::kFloat).repeat_interleave(64, 1);
  // half a step, a bit more at the ends of the range, which rounding may have moved
  EXPECT_LE(((dequantize(q) - x).abs() / step).max().item<float>(), .7f);
}

TEST(HalfQuadraticSolver, KeepsGroupsFarFromZeroPreciseAndFlatOnesExact) {
  at::manual_seed(2);
  const at::Tensor far = 100 + at::rand({2, 64}) * .1;
  const QuantizedTensor q = half_quadratic(far, 0, {.bits = 4});
  EXPECT_EQ(q.scale.scalar_type(), at::kFloat);
  EXPECT_LE((dequantize(q) - far).abs().max().item<float>(), .1f / 15);
  const at::Tensor flat = at::full({2, 64}, .25f);
  EXPECT_TRUE(at::equal(dequantize(half_quadratic(flat, 0, {})), flat));
  EXPECT_TRUE(at::equal(dequantize(half_quadratic(flat * 0, 0, {})), flat * 0));
}

TEST(HalfQuadraticSolver, GivesTheSameBytesOnOneThreadAndOnThree) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({300, 700});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const QuantizedTensor one = half_quadratic(x, 0, {});
  at::set_num_threads(3);
  const QuantizedTensor three = half_quadratic(x, 0, {});
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.fields[0], three.fields[0]));
  EXPECT_TRUE(at::equal(one.zero_point, three.zero_point));
}

TEST(HalfQuadraticSolver, RefusesWhatIsNotFinite) {
  const at::Tensor x = at::full({1, 4}, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(message_of([&] { half_quadratic(x, 0, {}, "fc.weight"); }),
              HasSubstr("4 of 4 weights are NaN"));
}

}  // namespace
}  // namespace compress::testing
