// Quantization grids of many rows of a weight at once, side by side.

#pragma once

#include "passes/second_order/panel_product.h"

#include <cstdint>
#include <vector>

namespace compress {

/// How the range of a grid is found. Ranges contain 0, and 0 is on the grid.
enum class GridRange {
  kMinmax,    ///< the least and the greatest weight
  kWeighted,  ///< of 80 ranges shrunk in steps of 1 %, those with a zero point also moved by one
              ///< code up and down, the one of least squared error, each column weighed by its
              ///< importance
};

/// Which codes there are; as in RoundToNearest (passes/quantize/round_to_nearest.h).
struct GridRule {
  int bits = 4;
  bool symmetric = true;
  GridRange range = GridRange::kMinmax;

  float last() const { return static_cast<float>((1 << bits) - 1); }
};

/// The grids of kFloatLanes rows: code = clamp(round(x / scale) + zero, 0, 2^bits - 1), rounded
/// half to even.
struct LaneGrids {
  alignas(64) float scale[kFloatLanes];
  alignas(64) float zero[kFloatLanes];
};

/// Least (at most 0) and greatest (at least 0) element of each of kFloatLanes rows.
struct LaneRanges {
  alignas(64) float low[kFloatLanes] = {};
  alignas(64) float high[kFloatLanes] = {};
  /// Takes in `count` columns, [count][kFloatLanes].
  void add(const float* columns, int64_t count);
};

/// How many grids kWeighted tries.
int64_t candidates(const GridRule& rule);
/// The grids of a candidate; the first are those of the ranges as they are.
LaneGrids lane_grids(const LaneRanges& ranges, int64_t candidate, const GridRule& rule);
/// Squared errors of rounding `count` columns with each candidate, each column weighed by its
/// importance, added to `errors`, [candidates][kFloatLanes].
void add_errors(const float* columns, const double* importance, int64_t count,
                const LaneRanges& ranges, const GridRule& rule, std::vector<double>& errors);

/// The grids of `count` columns, a row each.
LaneGrids find_lane_grids(const float* columns, const double* importance, int64_t count,
                          const GridRule& rule);

/// Rounds kFloatLanes values to their grids: what they decode to, and their codes.
void round_lanes(const float* values, const LaneGrids& grids, float last, float* decoded,
                 uint8_t* codes);

}  // namespace compress
