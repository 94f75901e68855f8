// Ranges against closed forms and against searches that look at every element.

#include "passes/quantize/ranges.h"

#include "compress/calibrate/histogram.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace compress {
namespace {

Histogram histogram_of(const at::Tensor& values) {
  Histogram histogram;
  histogram.add(values);
  return histogram;
}

double error_of(const at::Tensor& x, const ActivationGrid& grid) {
  const at::Tensor steps = (x.to(at::kDouble) / grid.scale)
                               .round()
                               .clamp(static_cast<double>(grid.first - grid.zero_point),
                                      static_cast<double>(grid.last - grid.zero_point));
  return (steps * grid.scale - x).square().sum().item<double>();
}

// The sum over P and Q as Migacz's slides have it, bin by bin.
double divergence_reference(const std::vector<double>& counts, size_t kept, int64_t levels) {
  std::vector<double> p(counts.begin(), counts.begin() + static_cast<int64_t>(kept)), q(kept, 0);
  for (size_t i = kept; i < counts.size(); ++i) p.back() += counts[i];
  for (int64_t level = 0; level < levels; ++level) {
    const size_t begin = kept * level / levels, end = kept * (level + 1) / levels;
    double sum = 0, filled = 0;
    for (size_t i = begin; i < end; ++i) {
      sum += counts[i];
      filled += p[i] > 0 ? 1 : 0;
    }
    for (size_t i = begin; i < end; ++i) {
      q[i] = p[i] == 0 ? 0 : sum > 0 ? sum / filled : 1e-4;
    }
  }
  double p_sum = 0, q_sum = 0, divergence = 0;
  for (size_t i = 0; i < kept; ++i) {
    p_sum += p[i];
    q_sum += counts[i];
  }
  for (size_t i = 0; i < kept; ++i) {
    if (p[i] == 0) continue;
    divergence += p[i] / p_sum * std::log((p[i] / p_sum) / (q[i] / q_sum));
  }
  return divergence;
}

TEST(Ranges, MinmaxAndMovingTakeTheExtremesAndZero) {
  const at::Tensor extremes = at::tensor({0.5f, 3.f});
  for (const auto method : {ActivationRange::kMinmax, ActivationRange::kMoving}) {
    EXPECT_EQ(range_of(extremes, {method}, {}), (Interval{0, 3}));
  }
}

// Of 0, 0.01, ..., 9.99 the p-th percentile is p / 10, to a bin of 2^-8 and a step of 0.01.
TEST(Ranges, PercentilesOfAUniformDistributionAreItsShares) {
  const Histogram histogram = histogram_of(at::arange(1000).to(at::kFloat) / 100);
  for (const double p : {50.0, 90.0, 99.0}) {
    const Interval range = percentile_range(histogram, p, false);
    EXPECT_NEAR(range.high, p / 10, 0.02);
    EXPECT_EQ(range.low, 0);
    EXPECT_NEAR(percentile_range(histogram, p, true).high, p / 10, 0.02);
  }
}

TEST(Ranges, PercentilesClipBothSidesOfAnAffineRange) {
  const Histogram histogram = histogram_of(at::arange(-300, 700).to(at::kFloat) / 100);
  const Interval affine = percentile_range(histogram, 90, false);
  EXPECT_NEAR(affine.low, -2, 0.02);
  EXPECT_NEAR(affine.high, 6, 0.02);
  // |x| is at most 3 for 600 of 1000 and at most 6 for 900.
  const Interval symmetric = percentile_range(histogram, 90, true);
  EXPECT_NEAR(symmetric.high, 6, 0.02);
  EXPECT_EQ(symmetric.low, -3) << "never wider than what was seen";
}

TEST(Ranges, TheHundredthPercentileIsTheWholeRange) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({5000});
  const Interval range = percentile_range(histogram_of(x), 100, false);
  EXPECT_NEAR(range.low, x.min().item<double>(), 1e-6);
  EXPECT_NEAR(range.high, x.max().item<double>(), 1e-6);
}

// A bin is at most 1/8 of a step of 8 bits here, so it moves the error by some percent at most.
TEST(Ranges, SquaredErrorsAreThoseOfTheElements) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({20000}).relu();
  const Histogram histogram = histogram_of(x);
  for (const int bits : {2, 4, 8}) {
    const ActivationGrid grid = activation_grid({0, 2.5}, {bits, false, false});
    const double expected = error_of(x, grid);
    EXPECT_NEAR(squared_error(histogram, grid), expected, 0.02 * expected) << bits;
  }
}

TEST(Ranges, LeastErrorIsThatOfASearchOverElements) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({20000}).relu().pow(2);
  const double high = x.max().item<double>();
  for (const int bits : {2, 3, 4, 8}) {
    const ActivationCodes codes{bits, false, false};
    double least = std::numeric_limits<double>::infinity();
    for (int step = 0; step < 80; ++step) {
      const Interval range{0, high * (1 - step / 100.0)};
      least = std::min(least, error_of(x, activation_grid(range, codes)));
    }
    const Interval found = least_error_range(histogram_of(x), codes);
    EXPECT_NEAR(error_of(x, activation_grid(found, codes)), least, 0.02 * least) << bits;
  }
}

TEST(Ranges, LeastErrorShrinksEachEndOnItsOwn) {
  at::manual_seed(4);
  // A long tail on one side only.
  const at::Tensor x = at::cat({at::rand({5000}) - 1, at::randn({5000}).abs().pow(3)});
  const ActivationCodes codes{3, false, false};
  double least = std::numeric_limits<double>::infinity();
  const double low = x.min().item<double>(), high = x.max().item<double>();
  for (int i = 0; i < 80; i += 3) {
    for (int j = 0; j < 80; j += 3) {
      const Interval range{low * (1 - i / 100.0), high * (1 - j / 100.0)};
      least = std::min(least, error_of(x, activation_grid(range, codes)));
    }
  }
  const Interval found = least_error_range(histogram_of(x), codes);
  // Turns of one end after the other end near the best pair, and here a step in between.
  EXPECT_LT(error_of(x, activation_grid(found, codes)), 1.05 * least);
  EXPECT_LT(found.high, 0.9 * high);
}

// The best step of 16 uniform levels for a normal distribution is 0.3352 deviations (Max,
// "Quantizing for minimum distortion", 1960, table II); a step of the search is 0.007.
TEST(Ranges, LeastErrorClipsANormalDistributionWhereTheoryDoes) {
  at::manual_seed(5);
  const Interval found = least_error_range(histogram_of(at::randn({1 << 20})), {4, true, true});
  EXPECT_NEAR(found.high / 7, 0.3352, 0.007);
}

TEST(Ranges, DivergenceIsTheSumOverBins) {
  at::manual_seed(6);
  const at::Tensor drawn = at::randint(0, 9, {64}) * (at::rand({64}) > 0.2);
  std::vector<double> counts;
  for (int64_t i = 0; i < 64; ++i) counts.push_back(drawn[i].item<double>());
  counts[30] = 5;
  for (const int64_t levels : {4, 7, 16}) {
    for (size_t kept = levels; kept <= counts.size(); ++kept) {
      const double expected = divergence_reference(counts, kept, levels);
      const double found = clipping_divergence(counts, kept, levels);
      EXPECT_NEAR(found, expected, 1e-12) << kept << " in " << levels;
    }
  }
}

TEST(Ranges, EntropyKeepsAUniformRange) {
  const Histogram histogram = histogram_of(at::arange(100000).to(at::kFloat) / 1000);
  const Interval range = entropy_range(histogram, {8, false, false});
  EXPECT_NEAR(range.high, 100, 1);
  EXPECT_EQ(range.low, 0);
}

TEST(Ranges, EntropyClipsALoneOutlier) {
  at::manual_seed(7);
  const at::Tensor x = at::cat({at::randn({100000}).abs(), at::tensor({40.f})});
  const Interval range = entropy_range(histogram_of(x), {8, false, false});
  EXPECT_LT(range.high, 10);
  EXPECT_GT(range.high, 2.5);
}

TEST(Ranges, ZerosAloneAndOneElementAreRangesToo) {
  for (const auto method :
       {ActivationRange::kPercentile, ActivationRange::kMse, ActivationRange::kKl}) {
    for (const bool symmetric : {false, true}) {
      const ActivationCodes codes{8, symmetric, false};
      const at::Tensor zeros = histogram_of(at::zeros({8})).to_tensor();
      EXPECT_EQ(range_of(zeros, {method}, codes), Interval{});
      const at::Tensor one = histogram_of(at::full({1}, 3.f)).to_tensor();
      const Interval range = range_of(one, {method, 100}, codes);
      EXPECT_NEAR(range.high, 3, 1e-3) << static_cast<int>(method);
      const at::Tensor negative = histogram_of(at::full({4}, -3.f)).to_tensor();
      EXPECT_NEAR(range_of(negative, {method, 100}, codes).low, -3, 1e-3);
    }
  }
}

}  // namespace
}  // namespace compress
