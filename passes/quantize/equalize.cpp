// The arithmetic of cross-layer equalization.

#include "passes/quantize/equalize.h"

#include "compress/encoding.h"
#include "compress/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

namespace compress {

at::Tensor by_channels(const at::Tensor& weight, int64_t output_dim, int64_t groups,
                       int64_t inputs) {
  const at::Tensor matrix = as_matrix(weight, output_dim).to(at::kDouble);
  COMPRESS_CHECK(matrix.size(0) % groups == 0 && matrix.size(1) % (inputs / groups) == 0,
                 "the weight has these channels");
  return matrix.reshape({groups, matrix.size(0) / groups, inputs / groups, -1});
}

at::Tensor from_channels(const at::Tensor& channels, const at::Tensor& like, int64_t output_dim) {
  const at::Tensor matrix = channels.reshape({like.size(output_dim), -1});
  return from_matrix(matrix, like.sizes().vec(), output_dim).to(like.scalar_type()).contiguous();
}

at::Tensor output_ranges(const at::Tensor& channels) {
  return channels.abs().amax({2, 3}).flatten();
}

at::Tensor input_ranges(const at::Tensor& channels) {
  return channels.abs().amax({1, 3}).flatten();
}

at::Tensor scale_outputs(const at::Tensor& channels, const at::Tensor& factors) {
  return channels * factors.view({channels.size(0), channels.size(1), 1, 1});
}

at::Tensor scale_inputs(const at::Tensor& channels, const at::Tensor& factors) {
  return channels * factors.view({channels.size(0), 1, channels.size(2), 1});
}

at::Tensor equalizing_factors(const at::Tensor& first, const at::Tensor& second) {
  const at::Tensor factors = (first / second).sqrt();
  return at::where((first > 0).logical_and(second > 0), factors, at::ones_like(factors));
}

at::Tensor absorbed_bias(const at::Tensor& shift, const at::Tensor& deviation) {
  return (shift - 3 * deviation.abs()).clamp_min(0);
}

at::Tensor response_to(const at::Tensor& channels, const at::Tensor& c) {
  return scale_inputs(channels, c).sum({2, 3}).flatten();
}

}  // namespace compress
