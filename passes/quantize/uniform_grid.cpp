// All rows try the same share of their range at a time.

#include "passes/quantize/uniform_grid.h"

#include "compress/encoding_bits.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <cfloat>

namespace compress {
namespace {

// The grid of the ranges [low, high] with 0 inside, [rows, 1] each.
UniformGrid grid_between(const at::Tensor& low, const at::Tensor& high, int bits, bool symmetric) {
  UniformGrid grid{bits, symmetric, {}, {}};
  const auto last = static_cast<double>(grid.last());
  const at::Tensor width =
      symmetric ? at::maximum(-low, high) * (2 / (last - 1)) : (high - low) / last;
  grid.scale = at::where(width == 0, at::ones_like(width), width.clamp_min(FLT_MIN));
  grid.zero = symmetric ? at::full_like(width, static_cast<double>(int64_t{1} << (bits - 1)))
                        : (-low / grid.scale).round().clamp(0, last);
  return grid;
}

}  // namespace

UniformGrid grid_of(const QuantizedTensor& quantized) {
  const at::Tensor scale = quantized.scale.to(at::kFloat).expand({quantized.rows(), 1});
  return {quantized.bits, quantized.symmetric(), scale.contiguous(),
          quantized.symmetric()
              ? at::full_like(scale, static_cast<double>(quantized.offset()))
              : quantized.zero_point.to(at::kFloat).expand({quantized.rows(), 1}).contiguous()};
}

UniformGrid least_error_grid(const at::Tensor& matrix, int bits, bool symmetric, double power) {
  const at::Tensor low = std::get<0>(matrix.min(1, true)).clamp_max(0);
  const at::Tensor high = std::get<0>(matrix.max(1, true)).clamp_min(0);
  UniformGrid best = grid_between(low, high, bits, symmetric);
  at::Tensor least;
  for (int percent = 100; percent >= 1; --percent) {
    const double share = percent / 100.0;
    const UniformGrid grid = grid_between(low * share, high * share, bits, symmetric);
    const at::Tensor values = (nearest_codes(matrix, grid) - grid.zero) * grid.scale;
    const at::Tensor error = (values - matrix).abs_().pow_(power).sum(1, true, at::kDouble);
    const at::Tensor better = least.defined() ? error < least : at::ones_like(error, at::kBool);
    least = least.defined() ? at::minimum(error, least) : error;
    best.scale = at::where(better, grid.scale, best.scale);
    best.zero = at::where(better, grid.zero, best.zero);
  }
  return best;
}

at::Tensor nearest_codes(const at::Tensor& matrix, const UniformGrid& grid) {
  return (matrix / grid.scale).round_().add_(grid.zero).clamp_(0, grid.last());
}

QuantizedTensor with_codes(const at::Tensor& codes, const UniformGrid& grid,
                           const std::vector<int64_t>& sizes, int64_t channel_dim,
                           at::ScalarType dtype) {
  QuantizedTensor out;
  out.sizes = sizes;
  out.dtype = dtype;
  out.channel_dim = channel_dim;
  out.bits = grid.bits;
  out.fields = pack_codes(codes.to(at::kByte).contiguous(), grid.bits);
  out.scale = grid.scale.detach().clone();
  if (!grid.symmetric) out.zero_point = grid.zero.to(at::kByte);
  out.group_size = codes.size(1);
  return out;
}

}  // namespace compress
