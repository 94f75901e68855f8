// The codebooks that number formats fix, and what weights with a codebook are called.

#include "compress/encoding_codebooks.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/tensor.h>

#include <fmt/format.h>

#include <vector>

namespace compress {

const at::Tensor& nf4_codebook() {
  static const at::Tensor codebook = at::tensor(std::vector<float>(kNf4.begin(), kNf4.end()));
  return codebook;
}

const at::Tensor& fp4_codebook() {
  static const at::Tensor codebook = [] {
    const at::Tensor positive = at::tensor(std::vector<float>{0, 0.5f, 1, 1.5f, 2, 3, 4, 6});
    return at::cat({positive, positive.neg()});
  }();
  return codebook;
}

const at::Tensor& fp8_codebook() {
  static const at::Tensor codebook =
      at::arange(256, at::kInt).to(at::kByte).view(at::kFloat8_e4m3fn).to(at::kFloat).nan_to_num(0);
  return codebook;
}

std::string_view known_codebook(const at::Tensor& codebook) {
  if (codebook.scalar_type() != at::kFloat) return {};
  if (at::equal(codebook, nf4_codebook())) return "nf4_codebook";
  if (at::equal(codebook, fp4_codebook())) return "fp4_codebook";
  return at::equal(codebook, fp8_codebook()) ? "fp8_codebook" : "";
}

std::string codebook_format(const QuantizedTensor& quantized) {
  const std::string_view known = known_codebook(quantized.codebook);
  if (known == "nf4_codebook") return "nf4";
  if (known == "fp8_codebook") return "fp8 e4m3";
  if (known.empty()) return fmt::format("codebook{}", quantized.bits);
  const auto has_blocks_of = [&](int64_t size) {
    return quantized.group_size == size || (quantized.groups() == 1 && quantized.columns() < size);
  };
  const at::ScalarType scales = quantized.scale.scalar_type();
  if (scales == at::kFloat8_e8m0fnu && has_blocks_of(32)) return "mxfp4";
  if (scales == at::kFloat8_e4m3fn && has_blocks_of(16)) return "nvfp4";
  return "fp4";
}

at::Tensor float_scale(const QuantizedTensor& quantized) {
  const at::Tensor scale = quantized.scale.to(at::kFloat);
  return quantized.global_scale.defined() ? scale.mul(quantized.global_scale) : scale;
}

}  // namespace compress
