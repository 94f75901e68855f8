// All searches work on prefix sums over bins, so that a candidate costs a few operations a code
// instead of a look at each bin.

#include "passes/quantize/ranges.h"

#include "compress/calibrate/histogram.h"
#include "compress/error.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace compress {
namespace {

constexpr int64_t kHalf = Histogram::kHalf;
constexpr int64_t kBins = 2 * kHalf;
// What a bin holds of which only clipped elements are left; 0 would forbid to clip a lone outlier.
constexpr double kEmptyCount = 1e-4;

// Where the elements of a bin are taken to lie.
double point_of(const Histogram& histogram, int64_t bin) {
  if (bin == kHalf) return 0;
  const double middle = (static_cast<double>(bin - kHalf) + 0.5) * histogram.width();
  return std::clamp(middle, histogram.low(), histogram.high());
}

// Sums of 1, x and x^2 over the elements of all bins in front of each.
class PrefixSums {
 public:
  explicit PrefixSums(const Histogram& histogram) : width_(histogram.width()) {
    sums_.resize(kBins + 1);
    for (int64_t bin = 0; bin < kBins; ++bin) {
      const auto count = static_cast<double>(histogram.counts()[bin]);
      const double x = point_of(histogram, bin);
      sums_[bin + 1] = {sums_[bin].count + count, sums_[bin].sum + count * x,
                        sums_[bin].square + count * x * x};
    }
  }

  // Each code takes the bins whose middle is nearer to its number than to its neighbours'.
  double error(const ActivationGrid& grid) const {
    double total = 0;
    int64_t begin = 0;
    for (int64_t code = grid.first; code <= grid.last; ++code) {
      const auto steps = static_cast<double>(code - grid.zero_point);
      const int64_t end = code == grid.last ? kBins : bins_below((steps + 0.5) * grid.scale);
      const double x = steps * grid.scale;
      const Sums &from = sums_[begin], &to = sums_[end];
      total +=
          (to.square - from.square) - 2 * x * (to.sum - from.sum) + x * x * (to.count - from.count);
      begin = end;
    }
    return std::max(total, 0.0);
  }

 private:
  struct Sums {
    double count = 0, sum = 0, square = 0;
  };

  int64_t bins_below(double x) const {
    const double bin = std::ceil(x / width_ - 0.5) + kHalf;
    return static_cast<int64_t>(std::clamp(bin, 0.0, static_cast<double>(kBins)));
  }

  double width_;
  std::vector<Sums> sums_;
};

// The counts of |x|, from 0 on, two bins in one.
std::vector<double> magnitudes(const Histogram& histogram) {
  std::vector<double> counts(kHalf / 2, 0);
  for (int64_t i = 0; i < kHalf; ++i) {
    counts[i / 2] += static_cast<double>(histogram.counts()[kHalf + i]);
    counts[i / 2] += static_cast<double>(histogram.counts()[kHalf - 1 - i]);
  }
  while (!counts.empty() && counts.back() == 0) counts.pop_back();
  if (counts.size() > 1) counts[0] = counts[1];
  return counts;
}

// Divergences of many thresholds over the same counts.
class Divergences {
 public:
  explicit Divergences(const std::vector<double>& counts) : counts_(counts) {
    below_.resize(counts.size() + 1);
    entropy_.resize(counts.size() + 1);
    filled_.resize(counts.size() + 1);
    for (size_t i = 0; i < counts.size(); ++i) {
      below_[i + 1] = below_[i] + counts[i];
      entropy_[i + 1] = entropy_[i] + log_product(counts[i], counts[i]);
      filled_[i + 1] = filled_[i] + (counts[i] > 0 ? 1 : 0);
    }
  }

  // With P the clipped counts, N their sum, Q the counts inside and M their sum:
  // sum P/N ln(P/N) - sum P/N ln(Q/M), where Q is spread evenly over the bins of a part that P
  // fills.
  double at(size_t kept, int64_t levels) const {
    const double total = below_.back(), inside = below_[kept];
    const double outside = total - inside, last = counts_[kept - 1];
    if (total == 0 || inside == 0) return std::numeric_limits<double>::infinity();
    double sum =
        entropy_[kept] - log_product(last, last) + log_product(last + outside, last + outside);
    size_t begin = 0;
    for (int64_t level = 1; level <= levels; ++level) {
      const size_t end = kept * static_cast<size_t>(level) / static_cast<size_t>(levels);
      double mine = below_[end] - below_[begin], filled = filled_[end] - filled_[begin];
      const double merged = mine;
      if (level == levels) {
        mine += outside;
        if (last == 0 && outside > 0) filled += 1;
      }
      if (mine > 0) sum -= mine * std::log(merged > 0 ? merged / filled : kEmptyCount);
      begin = end;
    }
    return sum / total - std::log(total / inside);
  }

 private:
  static double log_product(double a, double b) { return b > 0 ? a * std::log(b) : 0; }

  const std::vector<double>& counts_;
  std::vector<double> below_, entropy_, filled_;  // sums in front of each bin
};

// The value with `rank` elements below it.
double value_at_rank(const Histogram& histogram, double rank) {
  double below = 0;
  for (int64_t bin = 0; bin < kBins; ++bin) {
    const auto count = static_cast<double>(histogram.counts()[bin]);
    if (count > 0 && below + count >= rank) {
      const double share = std::max(0.0, rank - below) / count;
      const double x = (static_cast<double>(bin - kHalf) + share) * histogram.width();
      return std::clamp(x, histogram.low(), histogram.high());
    }
    below += count;
  }
  return histogram.high();
}

}  // namespace

Statistic statistic_for(ActivationRange method) {
  switch (method) {
    case ActivationRange::kMinmax:
      return Statistic::kMinMax;
    case ActivationRange::kMoving:
      return Statistic::kMovingMinMax;
    default:
      return Statistic::kHistogram;
  }
}

Interval range_of(const at::Tensor& statistic, const RangeChoice& choice,
                  const ActivationCodes& codes) {
  if (statistic_for(choice.method) != Statistic::kHistogram) {
    const auto* extremes = statistic.const_data_ptr<float>();
    return Interval::with_zero(extremes[0], extremes[1]);
  }
  const Histogram histogram = Histogram::from_tensor(statistic);
  if (choice.method == ActivationRange::kMse) return least_error_range(histogram, codes);
  if (choice.method == ActivationRange::kKl) return entropy_range(histogram, codes);
  return percentile_range(histogram, choice.percentile, codes.symmetric);
}

Interval percentile_range(const Histogram& histogram, double percentile, bool symmetric) {
  const double inside = percentile / 100 * static_cast<double>(histogram.total());
  if (!symmetric) {
    return Interval::with_zero(
        value_at_rank(histogram, static_cast<double>(histogram.total()) - inside),
        value_at_rank(histogram, inside));
  }
  double below = 0, most = 0;
  for (int64_t i = 0; i < kHalf; ++i) {
    const auto count =
        static_cast<double>(histogram.counts()[kHalf + i] + histogram.counts()[kHalf - 1 - i]);
    if (count == 0) continue;
    const double share = std::min(1.0, std::max(0.0, inside - below) / count);
    most = (static_cast<double>(i) + share) * histogram.width();
    below += count;
    if (below >= inside) break;
  }
  return {std::max(-most, std::min(histogram.low(), 0.0)),
          std::min(most, std::max(histogram.high(), 0.0))};
}

double squared_error(const Histogram& histogram, const ActivationGrid& grid) {
  return PrefixSums(histogram).error(grid);
}

Interval least_error_range(const Histogram& histogram, const ActivationCodes& codes) {
  constexpr int kSteps = 80, kRounds = 4;  // two ends settle in two or three rounds
  const PrefixSums sums(histogram);
  const Interval seen = Interval::with_zero(histogram.low(), histogram.high());
  Interval best = seen;
  double least = sums.error(activation_grid(best, codes));
  const auto shrink = [&](bool low, bool high) {
    const Interval start = best;
    bool improved = false;
    for (int step = 0; step < kSteps; ++step) {
      const double keep = 1 - step / 100.0;
      const Interval range{low ? seen.low * keep : start.low, high ? seen.high * keep : start.high};
      const double error = sums.error(activation_grid(range, codes));
      if (error >= least) continue;
      least = error;
      best = range;
      improved = true;
    }
    return improved;
  };
  if (codes.symmetric || seen.low == 0 || seen.high == 0) {
    shrink(true, true);
    return best;
  }
  for (int round = 0; round < kRounds; ++round) {
    const bool high = shrink(false, true), low = shrink(true, false);
    if (!high && !low) break;
  }
  return best;
}

double clipping_divergence(const std::vector<double>& counts, size_t kept, int64_t levels) {
  COMPRESS_CHECK(kept > 0 && kept <= counts.size() && levels > 0, "a threshold lies inside");
  return Divergences(counts).at(kept, levels);
}

Interval entropy_range(const Histogram& histogram, const ActivationCodes& codes) {
  const Interval seen = Interval::with_zero(histogram.low(), histogram.high());
  const std::vector<double> counts = magnitudes(histogram);
  const bool halved = codes.is_signed && codes.symmetric;
  const int64_t levels = int64_t{1} << (codes.bits - (seen.low < 0 || halved ? 1 : 0));
  const Divergences divergences(counts);
  size_t best = counts.size();
  double least = std::numeric_limits<double>::infinity();
  for (auto kept = static_cast<size_t>(levels); kept <= counts.size(); ++kept) {
    const double divergence = divergences.at(kept, levels);
    if (divergence > least) continue;  // of equals the widest
    least = divergence;
    best = kept;
  }
  if (best == counts.size()) return seen;
  const double threshold = static_cast<double>(2 * best) * histogram.width();
  return {std::max(seen.low, -threshold), std::min(seen.high, threshold)};
}

}  // namespace compress
