// The codes of an activation's quantizer and the numbers that they stand for.

#include "passes/quantize/activation_grid.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace compress {

Interval Interval::with_zero(double low, double high) {
  return {std::min(low, 0.0), std::max(high, 0.0)};
}

ActivationGrid activation_grid(Interval range, const ActivationCodes& codes) {
  const int64_t half = int64_t{1} << (codes.bits - 1);
  ActivationGrid grid;
  grid.first = codes.is_signed ? -half : 0;
  grid.last = grid.first + 2 * half - 1;
  const bool centred = codes.symmetric && (codes.is_signed || range.low < 0);
  const double width = centred ? std::max(-range.low, range.high) : range.high - range.low;
  grid.zero_point = centred ? grid.first + half : grid.first;
  if (width == 0) return grid;
  const auto steps = static_cast<double>(centred ? half - 1 : 2 * half - 1);
  // The operator divides by the scale in float; a denormal one would give infinity.
  grid.scale = std::max(static_cast<float>(width / steps), FLT_MIN);
  if (!centred) {
    const auto below = static_cast<int64_t>(std::nearbyint(-range.low / grid.scale));
    grid.zero_point = std::clamp(grid.first + below, grid.first, grid.last);
  }
  return grid;
}

}  // namespace compress
