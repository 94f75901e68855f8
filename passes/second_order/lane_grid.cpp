// Quantization grids of many rows of a weight at once, side by side.

#include "passes/second_order/lane_grid.h"

#include "compress/multiversion.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace compress {
namespace {

// Adding 1.5 * 2^23 and taking it away rounds half to even.
constexpr float kRounder = 12582912.0f;

constexpr int64_t kSteps = 80;  // of 1 %, by which kWeighted shrinks a range

COMPRESS_MULTIVERSION
void widen(const float* columns, int64_t count, float* low, float* high) {
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t lane = 0; lane < kFloatLanes; ++lane) {
      const float x = columns[k * kFloatLanes + lane];
      low[lane] = x < low[lane] ? x : low[lane];
      high[lane] = x > high[lane] ? x : high[lane];
    }
  }
}

COMPRESS_MULTIVERSION
void add_lane_errors(const float* columns, const double* importance, int64_t count,
                     const float* scale, const float* zero, float last, double* errors) {
  constexpr int64_t kBlock = 64;  // columns whose float sum is exact enough
  float steps_per_unit[kFloatLanes];
  for (int64_t lane = 0; lane < kFloatLanes; ++lane) steps_per_unit[lane] = 1 / scale[lane];
  for (int64_t start = 0; start < count; start += kBlock) {
    float sums[kFloatLanes] = {};
    for (int64_t k = start; k < std::min(count, start + kBlock); ++k) {
      const auto weight = static_cast<float>(importance[k]);
      for (int64_t lane = 0; lane < kFloatLanes; ++lane) {
        const float x = columns[k * kFloatLanes + lane];
        float steps = x * steps_per_unit[lane];
        steps = steps < -zero[lane] ? -zero[lane] : steps;
        steps = steps > last - zero[lane] ? last - zero[lane] : steps;
        const float error = x - (steps + kRounder - kRounder) * scale[lane];
        sums[lane] += weight * error * error;
      }
    }
    for (int64_t lane = 0; lane < kFloatLanes; ++lane) errors[lane] += sums[lane];
  }
}

COMPRESS_MULTIVERSION
void round_all(const float* values, const float* scale, const float* zero, float last,
               float* decoded, uint8_t* codes) {
  for (int64_t lane = 0; lane < kFloatLanes; ++lane) {
    float steps = values[lane] / scale[lane];
    steps = steps < -zero[lane] ? -zero[lane] : steps;
    steps = steps > last - zero[lane] ? last - zero[lane] : steps;
    const float whole = steps + kRounder - kRounder;
    decoded[lane] = whole * scale[lane];
    codes[lane] = static_cast<uint8_t>(static_cast<int>(whole + zero[lane]));
  }
}

}  // namespace

void LaneRanges::add(const float* columns, int64_t count) { widen(columns, count, low, high); }

int64_t candidates(const GridRule& rule) { return rule.symmetric ? kSteps : 3 * kSteps; }

LaneGrids lane_grids(const LaneRanges& ranges, int64_t candidate, const GridRule& rule) {
  constexpr double kMoves[] = {0, -1, 1};
  const double keep = 1 - static_cast<double>(candidate % kSteps) / 100, last = rule.last();
  const double move = kMoves[candidate / kSteps];
  LaneGrids grids;
  const int offset = 1 << (rule.bits - 1);
  for (int64_t lane = 0; lane < kFloatLanes; ++lane) {
    const double low = ranges.low[lane] * keep, high = ranges.high[lane] * keep;
    const double scale = rule.symmetric ? std::max(-low, high) / (offset - 1) : (high - low) / last;
    // A denormal scale could round to 0; all zeros have scale 1.
    grids.scale[lane] = scale == 0 ? 1 : std::max(static_cast<float>(scale), FLT_MIN);
    const double zero = rule.symmetric ? offset : std::nearbyint(-low / grids.scale[lane]) + move;
    grids.zero[lane] = static_cast<float>(std::clamp(zero, 0.0, last));
  }
  return grids;
}

void add_errors(const float* columns, const double* importance, int64_t count,
                const LaneRanges& ranges, const GridRule& rule, std::vector<double>& errors) {
  for (int64_t candidate = 0; candidate < candidates(rule); ++candidate) {
    const LaneGrids grids = lane_grids(ranges, candidate, rule);
    add_lane_errors(columns, importance, count, grids.scale, grids.zero, rule.last(),
                    errors.data() + candidate * kFloatLanes);
  }
}

LaneGrids find_lane_grids(const float* columns, const double* importance, int64_t count,
                          const GridRule& rule) {
  LaneRanges ranges;
  ranges.add(columns, count);
  LaneGrids best = lane_grids(ranges, 0, rule);
  if (rule.range == GridRange::kMinmax) return best;
  std::vector<double> errors(candidates(rule) * kFloatLanes, 0.0);
  add_errors(columns, importance, count, ranges, rule, errors);
  for (int64_t candidate = 1; candidate < candidates(rule); ++candidate) {
    const LaneGrids grids = lane_grids(ranges, candidate, rule);
    for (int64_t lane = 0; lane < kFloatLanes; ++lane) {
      const double error = errors[candidate * kFloatLanes + lane];
      if (error >= errors[lane]) continue;
      errors[lane] = error;
      best.scale[lane] = grids.scale[lane];
      best.zero[lane] = grids.zero[lane];
    }
  }
  return best;
}

void round_lanes(const float* values, const LaneGrids& grids, float last, float* decoded,
                 uint8_t* codes) {
  round_all(values, grids.scale, grids.zero, last, decoded, codes);
}

}  // namespace compress
