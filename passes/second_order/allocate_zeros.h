// How many zeros each layer gets, from what they would cost it.

#pragma once

#include <cstdint>
#include <vector>

namespace compress {

/// What zeros cost a layer: points of rising `zeros`, the first at 0.
struct LossCurve {
  std::vector<int64_t> zeros;
  std::vector<double> losses;
};

/// Divides `zeros` among layers so that the sum of their losses is least, losses between two points
/// being in line: the cheapest pieces of the curves' lower convex hulls come first. Exactly `zeros`
/// are given away, or as many as the curves reach.
std::vector<int64_t> allocate_zeros(const std::vector<LossCurve>& curves, int64_t zeros);

}  // namespace compress
