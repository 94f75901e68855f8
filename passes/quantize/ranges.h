// Which range the codes of an activation should cover, from what was seen of it.

#pragma once

#include "compress/calibrate/statistics.h"
#include "passes/quantize/activation_grid.h"

#include <ATen/core/Tensor.h>

#include <string_view>
#include <vector>

namespace compress {

class Histogram;

/// Where the range of an activation comes from.
enum class ActivationRange {
  kMinmax,      ///< the least and the greatest element
  kMoving,      ///< moving averages of each sample's least and greatest element
  kPercentile,  ///< percentiles of the elements; what is outside is clipped
  kMse,         ///< of shrunk ranges, the one of least squared error
  kKl,          ///< of clipped ranges, the one whose distribution diverges least
};
inline std::vector<std::string_view> option_names(ActivationRange) {
  return {"minmax", "moving", "percentile", "mse", "kl"};
}

/// How a range is chosen.
struct RangeChoice {
  ActivationRange method = ActivationRange::kMinmax;
  double percentile = 99.99;  ///< of |x| if symmetric; else this one above, 100 minus it below
};

/// The statistic that a method needs.
Statistic statistic_for(ActivationRange method);
/// The range by that statistic.
Interval range_of(const at::Tensor& statistic, const RangeChoice& choice,
                  const ActivationCodes& codes);

/// The interval between the given percentile and 100 minus it, or between the percentile of |x| and
/// its negative if `symmetric` (never wider than what was seen); linear inside a bin.
Interval percentile_range(const Histogram& histogram, double percentile, bool symmetric);

/// The range whose grid has the least squared error over the histogram, the elements of a bin taken
/// to lie in its middle (those of the bin that begins with 0, which a ReLU fills, at 0). Each end
/// is shrunk in steps of 1 % of what was seen down to 21 %: both together if `symmetric`, else in
/// turns until neither improves.
Interval least_error_range(const Histogram& histogram, const ActivationCodes& codes);
/// Sum of squared errors of those elements on a grid.
double squared_error(const Histogram& histogram, const ActivationGrid& grid);

/// The range [-t, t], inside what was seen, whose clipped distribution of |x| loses least when it
/// is merged into the magnitudes that the codes have: the threshold t of least Kullback-Leibler
/// divergence (Migacz, "8-bit Inference with TensorRT", GTC 2017). Counts are merged to 2048 bins;
/// exact zeros, which any grid keeps, are taken out: the first bin counts as its neighbour does.
Interval entropy_range(const Histogram& histogram, const ActivationCodes& codes);
/// The divergence of the first `kept` counts, with all behind them added to the last, from the same
/// counts merged into `levels` equal parts; a bin of a
/// part that loses all of its counts is taken to hold 1e-4 of one. In nats.
double clipping_divergence(const std::vector<double>& counts, size_t kept, int64_t levels);

}  // namespace compress
