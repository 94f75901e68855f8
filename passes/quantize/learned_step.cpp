// Formulas, and the codes of a trained weight.

#include "passes/quantize/learned_step.h"

#include "compress/encoding_bits.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <cmath>

namespace compress {

CodeRange code_range(int bits, bool has_negatives) {
  if (!has_negatives) return {0, (int64_t{1} << bits) - 1};
  const int64_t half = int64_t{1} << (bits - 1);
  return {-half, half - 1};
}

at::Tensor first_step(const at::Tensor& mean_of_magnitudes, const CodeRange& codes) {
  const at::Tensor step = mean_of_magnitudes * (2 / std::sqrt(static_cast<double>(codes.high)));
  return at::where(step > 0, step, at::ones_like(step));
}

double step_gradient_factor(int64_t count, const CodeRange& codes) {
  return 1 / std::sqrt(static_cast<double>(count) * static_cast<double>(codes.high));
}

QuantizedTensor quantize_with_step(const at::Tensor& weight, const at::Tensor& step,
                                   int64_t channel_dim, int bits) {
  const CodeRange range = code_range(bits, true);
  const at::Tensor matrix = as_matrix(weight.detach(), channel_dim).to(at::kFloat);
  const at::Tensor scale = step.detach().to(at::kFloat).view({-1, 1});
  QuantizedTensor out;
  out.sizes = weight.sizes().vec();
  out.dtype = weight.scalar_type();
  out.channel_dim = channel_dim;
  out.bits = bits;
  // By the reciprocal, as the operators of the training do.
  const at::Tensor codes = (matrix * scale.reciprocal()).round().clamp(range.low, range.high);
  out.fields =
      pack_codes((codes - static_cast<double>(range.low)).to(at::kByte).contiguous(), bits);
  out.scale = scale.clone();
  out.group_size = matrix.size(1);
  return out;
}

}  // namespace compress
