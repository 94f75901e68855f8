// The oracle of round_to_nearest.cpp: slow, in ATen operators and double precision where the fast
// way has a choice, with nothing shared but the packing of single codes.

#include "compress/encoding_bits.h"
#include "compress/error.h"
#include "passes/quantize/round_to_nearest.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace compress {
namespace {

struct Coded {
  at::Tensor codes;  // int64, sizes of the segment
  double error = 0;
  double scale = 1;
  int64_t zero = 0;
};

Coded code(const at::Tensor& x, double low, double high, const RoundToNearest& how) {
  const int64_t last = (int64_t{1} << how.bits) - 1, half = int64_t{1} << (how.bits - 1);
  Coded out;
  const double width = how.symmetric ? std::max(-low, high) : high - low;
  const int64_t steps = how.symmetric ? std::max<int64_t>(half - 1, 1) : last;
  out.zero = how.symmetric ? half : 0;
  if (width > 0) {
    out.scale = std::max(static_cast<float>(width / static_cast<double>(steps)), FLT_MIN);
    if (!how.symmetric) {
      out.zero = std::clamp<int64_t>(std::nearbyint(static_cast<float>(-low) / out.scale), 0, last);
    }
  }
  const at::Tensor scale = at::full({}, out.scale, at::kFloat);
  out.codes = ((x / scale).round() + out.zero).clamp(0, last).to(at::kLong);
  const at::Tensor decoded = (out.codes - out.zero).to(at::kDouble) * out.scale;
  out.error = (x.to(at::kDouble) - decoded).square().sum().item<double>();
  return out;
}

double percentile(const at::Tensor& values, double percentage) {
  const at::Tensor sorted = std::get<0>(values.flatten().sort());
  const double rank = std::ceil(percentage / 100 * static_cast<double>(values.numel()));
  const auto index = static_cast<int64_t>(rank) - 1;
  return sorted[std::clamp<int64_t>(index, 0, values.numel() - 1)].item<double>();
}

Coded quantize_segment(const at::Tensor& x, const RoundToNearest& how) {
  double low = std::min(0.0, x.min().item<double>()), high = std::max(0.0, x.max().item<double>());
  if (how.range == RangeMethod::kPercentile) {
    high = std::max(0.0, percentile(how.symmetric ? x.abs() : x, how.percentile));
    low = how.symmetric ? -high : std::min(0.0, -percentile(-x, how.percentile));
  }
  Coded best = code(x, low, high, how);
  for (int step = 1; how.range == RangeMethod::kMse && step < 80; ++step) {
    const auto keep = static_cast<float>(1 - step / 100.0);
    Coded shrunk = code(x, static_cast<float>(low) * keep, static_cast<float>(high) * keep, how);
    if (shrunk.error < best.error) best = shrunk;
  }
  return best;
}

}  // namespace

QuantizedTensor round_to_nearest_reference(const at::Tensor& weight, int64_t channel_dim,
                                           const RoundToNearest& how) {
  QuantizedTensor out;
  out.sizes = weight.sizes().vec();
  out.dtype = weight.scalar_type();
  out.channel_dim = channel_dim;
  out.bits = how.bits;
  const at::Tensor matrix = as_matrix(weight, channel_dim).to(at::kFloat);
  const int64_t rows = out.rows(), columns = out.columns();
  const bool whole = how.granularity.kind == Granularity::Kind::kTensor;
  const bool grouped = how.granularity.kind == Granularity::Kind::kGroup;
  out.group_size = grouped ? std::min(how.granularity.group_size, columns) : columns;
  const int64_t groups = (columns + out.group_size - 1) / out.group_size;
  const int64_t blocks = whole ? 1 : rows, height = whole ? rows : 1;
  out.scale = at::empty({blocks, groups}, at::kFloat);
  at::Tensor zero = at::empty({blocks, groups}, at::kByte);
  at::Tensor codes = at::empty({rows, columns}, at::kByte);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = group * out.group_size;
      const int64_t size = std::min(out.group_size, columns - first);
      const Coded coded =
          quantize_segment(matrix.narrow(0, block * height, height).narrow(1, first, size), how);
      out.scale[block][group] = coded.scale;
      zero[block][group] = coded.zero;
      codes.narrow(0, block * height, height).narrow(1, first, size).copy_(coded.codes);
    }
  }
  if (!how.symmetric) out.zero_point = zero;
  int shift = 0;
  for (int width : code_fields(how.bits)) {
    at::Tensor field = at::empty({rows, packed_bytes(columns, width)}, at::kByte);
    for (int64_t row = 0; row < rows; ++row) {
      pack_row_reference(codes.const_data_ptr<uint8_t>() + row * columns, columns, shift, width,
                         field.mutable_data_ptr<uint8_t>() + row * field.size(1));
    }
    out.fields.push_back(field);
    shift += width;
  }
  return out;
}

}  // namespace compress
