// Layers that compute on the codes of their weights.

#include "compress/encoding_bits.h"
#include "compress/engine/lowering.h"
#include "compress/io/mapped_file.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_convert_weight_to_int4pack_for_cpu.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cstdint>

namespace compress::engine {
namespace {

// More rows than this and a multiplication with decoded weights, four times their size, is faster.
constexpr int64_t kRowsOfPackedKernel = 8;

// LibTorch's kernel takes outputs by so many.
constexpr int64_t kRowsOfPackedWeight = 16;

// The length of runs with one scale that LibTorch's kernel has code for, or 0.
int64_t packed_group(int64_t group_size) {
  for (const int64_t length : {256, 128, 64, 32}) {
    if (group_size % length == 0) return length;
  }
  return 0;
}

at::Tensor codes_of(const QuantizedTensor& quantized) {
  return unpack_codes(quantized.fields, quantized.bits, quantized.columns()).to(at::kInt);
}

}  // namespace

// Without wide sums a kernel multiplies unsigned codes by signed ones and adds two neighbouring
// products in sixteen bits, saturated (vpmaddubsw); it scales weights of signed codes, which
// rounds.
bool Lowering::sums_fit(const at::Tensor& codes, const Grid& source) {
  if (arithmetic_.wide_sums) return true;
  const int64_t largest = codes.abs().max().item<int64_t>();
  const bool fit = source.dtype() == c10::kByte && 2 * largest * source.high <= INT16_MAX;
  if (!fit) ++program_.layers_of_narrow_sums;
  return fit;
}

std::optional<Affine> Lowering::integer_weights(const Node& layer, const Grid& source) {
  const auto found = weight_of_.find(&layer);
  if (found == weight_of_.end() || !found->second->is_quantized()) return std::nullopt;
  const Weight& weight = *found->second;
  const QuantizedTensor& quantized = *weight.quantized();
  const bool by_channel = quantized.channel_dim == 0 || quantized.scale.size(0) == 1;
  if (!quantized.symmetric() || quantized.has_codebook() || quantized.groups() != 1 ||
      !by_channel || weight.output_dim() != 0) {
    return std::nullopt;
  }
  const at::Tensor codes = codes_of(quantized) - quantized.offset();
  for (const at::Tensor& field : quantized.fields) release_pages(field);
  if (!sums_fit(codes, source)) return std::nullopt;
  Affine affine;
  affine.weight = from_matrix(codes, quantized.sizes, quantized.channel_dim);
  if (const at::Tensor mask = weight.mask(); mask.defined()) affine.weight = affine.weight * mask;
  affine.weight = affine.weight.to(at::kChar).contiguous();
  affine.scale = quantized.scale.to(at::kDouble).reshape({-1}) * source.scale;
  if (quantized.global_scale.defined()) affine.scale = affine.scale * quantized.global_scale;
  affine.scale = affine.scale.expand({quantized.sizes[0]});
  return affine;
}

std::optional<PackedLinear> Lowering::packed_weights(const Node& layer, int64_t rows) const {
  const auto found = weight_of_.find(&layer);
  if (arithmetic_.float_type != c10::kBFloat16 || rows > kRowsOfPackedKernel) return std::nullopt;
  if (found == weight_of_.end() || !found->second->is_quantized()) return std::nullopt;
  const Weight& weight = *found->second;
  const QuantizedTensor& quantized = *weight.quantized();
  const int64_t columns = quantized.columns();
  const int64_t of_file = std::min(quantized.group_size, columns);
  const int64_t group = columns % of_file == 0 ? packed_group(of_file) : 0;
  if (quantized.bits != 4 || quantized.has_codebook() || weight.mask().defined() ||
      weight.output_dim() != 0 || quantized.channel_dim != 0 || quantized.sizes.size() != 2 ||
      quantized.rows() % kRowsOfPackedWeight != 0 || group == 0) {
    return std::nullopt;
  }
  at::Tensor scale = quantized.scale.to(at::kFloat);
  if (quantized.global_scale.defined()) scale = scale * quantized.global_scale;
  const at::Tensor zero = quantized.symmetric() ? at::full_like(scale, quantized.offset())
                                                : quantized.zero_point.to(at::kFloat);
  // The kernel's value is (code - 8) * scale + shift.
  at::Tensor both = at::stack({scale, (8 - zero) * scale}, 2);
  both = both.expand({quantized.rows(), both.size(1), 2})
             .repeat_interleave(of_file / group, 1)
             .transpose(0, 1);
  return PackedLinear{at::_convert_weight_to_int4pack_for_cpu(codes_of(quantized), 1),
                      both.to(at::kBFloat16).contiguous(), constant(layer.argument("bias")), group};
}

}  // namespace compress::engine
