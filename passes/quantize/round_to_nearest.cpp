// A row of the weight is read once from memory: range, codes and packing follow while it is in
// cache.

#include "passes/quantize/round_to_nearest.h"

#include "compress/encoding_bits.h"
#include "compress/error.h"
#include "compress/multiversion.h"
#include "passes/quantize/not_finite.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cfloat>
#include <cmath>

namespace compress {
namespace {

constexpr int32_t kInfinity = 0x7f800000;

struct Range {
  float low = 0, high = 0;  // low <= 0 <= high
};

struct Grid {
  float scale = 1;
  int zero = 0;  // the code of 0
  int last = 0;  // the greatest code
};

// Floats order like these integers (but -0 < +0), so minima and maxima of them vectorise.
inline int32_t ordered(float x) {
  const auto bits = std::bit_cast<int32_t>(x);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
inline float unordered(int32_t key) {
  return std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff));
}

// The range of x with 0 in it; false if an element is not finite.
COMPRESS_MULTIVERSION
bool find_extent(const float* x, int64_t size, Range* range) {
  int32_t low = 0, high = 0;
  for (int64_t i = 0; i < size; ++i) {
    const int32_t key = ordered(x[i]);
    low = key < low ? key : low;
    high = key > high ? key : high;
  }
  range->low = unordered(low);
  range->high = unordered(high);
  return high < kInfinity && low > ~kInfinity;
}

// Adding 1.5 * 2^23 rounds half to even to an integer that then stands in the low bits.
constexpr float kRounder = 12582912.0f;
inline int32_t rounded(float x) {
  return std::bit_cast<int32_t>(x + kRounder) - std::bit_cast<int32_t>(kRounder);
}

COMPRESS_MULTIVERSION
void write_codes(const float* x, int64_t size, Grid grid, uint8_t* codes) {
  const auto low = static_cast<float>(-grid.zero), high = static_cast<float>(grid.last - grid.zero);
  for (int64_t i = 0; i < size; ++i) {
    float steps = x[i] / grid.scale;
    steps = steps < low ? low : steps;
    steps = steps > high ? high : steps;
    codes[i] = static_cast<uint8_t>(rounded(steps) + grid.zero);
  }
}

// Sum of squared errors; sixteen sums side by side, in the same order on every processor.
COMPRESS_MULTIVERSION
double squared_error(const float* x, int64_t size, Grid grid) {
  constexpr int kLanes = 16;
  constexpr int64_t kBlock = 4096;  // so few that a float sum of them is exact enough
  const auto low = static_cast<float>(-grid.zero), high = static_cast<float>(grid.last - grid.zero);
  const auto error = [&](float value) {
    float steps = value / grid.scale;
    steps = steps < low ? low : steps;
    steps = steps > high ? high : steps;
    const float difference = value - static_cast<float>(rounded(steps)) * grid.scale;
    return difference * difference;
  };
  double total = 0;
  for (int64_t start = 0; start < size; start += kBlock) {
    const int64_t end = std::min(size, start + kBlock);
    float sums[kLanes] = {};
    int64_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) sums[lane] += error(x[i + lane]);
    }
    for (; i < end; ++i) sums[0] += error(x[i]);
    for (float sum : sums) total += sum;
  }
  return total;
}

Grid grid_of(Range range, const RoundToNearest& how) {
  Grid grid;
  grid.last = (1 << how.bits) - 1;
  const double low = range.low, high = range.high;
  double scale;
  if (how.symmetric) {
    grid.zero = 1 << (how.bits - 1);
    scale = std::max(-low, high) / std::max(grid.zero - 1, 1);
  } else {
    scale = (high - low) / grid.last;
  }
  if (scale == 0) return grid;
  // A denormal scale could round to 0; the smallest normal one loses nothing that matters.
  grid.scale = std::max(static_cast<float>(scale), FLT_MIN);
  if (!how.symmetric) {
    const auto zero = static_cast<int>(std::nearbyint(-range.low / grid.scale));
    grid.zero = std::clamp(zero, 0, grid.last);
  }
  return grid;
}

// The element of `values` that `percentile` % of them do not exceed (nearest rank).
float percentile_of(std::vector<float>& values, double percentile) {
  const double rank = std::ceil(percentile / 100 * static_cast<double>(values.size()));
  const auto index =
      static_cast<int64_t>(std::clamp(rank, 1.0, static_cast<double>(values.size()))) - 1;
  std::nth_element(values.begin(), values.begin() + index, values.end());
  return values[index];
}

Range percentile_range(const float* x, int64_t size, const RoundToNearest& how) {
  std::vector<float> values(x, x + size);
  if (how.symmetric) {
    for (float& value : values) value = std::abs(value);
    const float most = percentile_of(values, how.percentile);
    return {-most, most};
  }
  const float high = percentile_of(values, how.percentile);
  for (float& value : values) value = -value;
  return {std::min(-percentile_of(values, how.percentile), 0.0f), std::max(high, 0.0f)};
}

Grid least_error_grid(const float* x, int64_t size, Range range, const RoundToNearest& how) {
  Grid best = grid_of(range, how);
  double least = squared_error(x, size, best);
  for (int step = 1; step < 80; ++step) {
    const auto keep = static_cast<float>(1 - step / 100.0);
    const Grid grid = grid_of({range.low * keep, range.high * keep}, how);
    const double error = squared_error(x, size, grid);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

// False if an element is not finite.
bool find_grid(const float* x, int64_t size, const RoundToNearest& how, Grid* grid) {
  Range range;
  if (!find_extent(x, size, &range)) return false;
  if (how.range == RangeMethod::kMse) {
    *grid = least_error_grid(x, size, range, how);
  } else {
    if (how.range == RangeMethod::kPercentile) range = percentile_range(x, size, how);
    *grid = grid_of(range, how);
  }
  return true;
}

QuantizedTensor allocate(const at::Tensor& weight, int64_t channel_dim, const RoundToNearest& how) {
  QuantizedTensor out;
  out.sizes = weight.sizes().vec();
  out.dtype = weight.scalar_type();
  out.channel_dim = channel_dim;
  out.bits = how.bits;
  const int64_t rows = out.rows(), columns = out.columns();
  const bool grouped = how.granularity.kind == Granularity::Kind::kGroup;
  out.group_size = grouped ? std::min(how.granularity.group_size, columns) : columns;
  const int64_t groups = (columns + out.group_size - 1) / out.group_size;
  const bool whole = how.granularity.kind == Granularity::Kind::kTensor;
  out.scale = at::empty({whole ? 1 : rows, groups}, at::kFloat);
  if (!how.symmetric) out.zero_point = at::empty(out.scale.sizes(), at::kByte);
  for (int width : code_fields(how.bits)) {
    out.fields.push_back(at::empty({rows, packed_bytes(columns, width)}, at::kByte));
  }
  return out;
}

}  // namespace

QuantizedTensor round_to_nearest(const at::Tensor& weight, int64_t channel_dim,
                                 const RoundToNearest& how, const std::string& name) {
  COMPRESS_CHECK(weight.numel() > 0 && weight.dim() > 0, "a weight to quantize has elements");
  const at::Tensor matrix =
      as_matrix(weight.detach(), channel_dim).to(at::kCPU, at::kFloat).contiguous();
  QuantizedTensor out = allocate(weight, channel_dim, how);
  const int64_t rows = out.rows(), columns = out.columns(), groups = out.groups();
  const float* x = matrix.const_data_ptr<float>();
  float* scale = out.scale.mutable_data_ptr<float>();
  uint8_t* zero = how.symmetric ? nullptr : out.zero_point.mutable_data_ptr<uint8_t>();
  const bool whole = how.granularity.kind == Granularity::Kind::kTensor;
  Grid shared;
  if (whole && !find_grid(x, rows * columns, how, &shared)) refuse_not_finite(weight, name);

  std::vector<uint8_t*> packed;
  for (at::Tensor& field : out.fields) packed.push_back(field.mutable_data_ptr<uint8_t>());
  const std::vector<int> widths = code_fields(how.bits);
  std::atomic<bool> finite = true;
  const int64_t grain = std::max<int64_t>(1, (1 << 15) / columns);
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> codes(columns);
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t first = group * out.group_size;
        const int64_t size = std::min(out.group_size, columns - first);
        const float* values = x + row * columns + first;
        Grid grid = shared;
        if (!whole && !find_grid(values, size, how, &grid)) finite = false;
        write_codes(values, size, grid, codes.data() + first);
        if (whole && row > 0) continue;
        scale[row * groups + group] = grid.scale;
        if (zero) zero[row * groups + group] = static_cast<uint8_t>(grid.zero);
      }
      int shift = 0;
      for (size_t f = 0; f < widths.size(); ++f) {
        pack_row(codes.data(), columns, shift, widths[f],
                 packed[f] + row * packed_bytes(columns, widths[f]));
        shift += widths[f];
      }
    }
  });
  if (!finite) refuse_not_finite(weight, name);
  return out;
}

}  // namespace compress
