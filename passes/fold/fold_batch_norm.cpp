// The arithmetic of folding a batch norm into the layer in front of it.

#include "passes/fold/fold_batch_norm.h"

#include "compress/encoding_bits.h"

#include <ATen/ATen.h>

#include <vector>

namespace compress {

at::Tensor channel_factors(const BatchNorm& norm) {
  const at::Tensor factors = (norm.variance.to(at::kDouble) + norm.eps).rsqrt();
  return norm.weight.defined() ? factors * norm.weight.to(at::kDouble) : factors;
}

at::Tensor scale_output_channels(const at::Tensor& weight, const at::Tensor& factors,
                                 int64_t output_dim, int64_t groups) {
  const at::Tensor wide = weight.to(at::kDouble);
  if (output_dim == 0) {
    std::vector<int64_t> shape(weight.dim(), 1);
    shape[0] = -1;
    return (wide * factors.view(shape)).to(weight.scalar_type());
  }
  // [groups, in / groups, out / groups, the rest] by [groups, 1, out / groups, 1]
  const at::Tensor parts = wide.reshape({groups, weight.size(0) / groups, weight.size(1), -1});
  return (parts * factors.view({groups, 1, -1, 1})).view(weight.sizes()).to(weight.scalar_type());
}

std::optional<QuantizedTensor> scale_rows(const QuantizedTensor& weight,
                                          const at::Tensor& factors) {
  if (weight.has_codebook()) return std::nullopt;
  QuantizedTensor out = weight;
  const at::Tensor factor = factors.to(at::kDouble).view({-1, 1});
  out.scale = (weight.scale.to(at::kDouble) * factor.abs()).to(weight.scale.scalar_type());
  const at::Tensor negative = factor < 0;
  if (!weight.symmetric()) out.zero_point = weight.zero_point.expand_as(out.scale).contiguous();
  if (!negative.any().item<bool>()) return out;

  const at::Tensor codes = unpack_codes(weight.fields, weight.bits, weight.columns());
  const int64_t highest = (int64_t{1} << weight.bits) - 1;
  if (weight.symmetric() && at::logical_and(codes == 0, negative).any().item<bool>()) {
    return std::nullopt;
  }
  // Around the offset, or around the middle of all codes together with the zero point.
  const int64_t mirror = weight.symmetric() ? 2 * weight.offset() : highest;
  const at::Tensor mirrored = (mirror - codes.to(at::kShort)).to(at::kByte);
  out.fields = pack_codes(at::where(negative, mirrored, codes), weight.bits);
  if (!weight.symmetric()) {
    out.zero_point = at::where(negative, highest - out.zero_point, out.zero_point);
  }
  return out;
}

at::Tensor folded_bias(const at::Tensor& bias, const BatchNorm& norm, at::ScalarType dtype) {
  at::Tensor out = -norm.mean.to(at::kDouble);
  if (bias.defined()) out = out + bias.to(at::kDouble);
  out = out * channel_factors(norm);
  if (norm.bias.defined()) out = out + norm.bias.to(at::kDouble);
  return out.to(dtype);
}

}  // namespace compress
