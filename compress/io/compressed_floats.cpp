// Weights with floating codes in the layouts of the compressed-tensors library.

#include "compress/io/compressed_floats.h"

#include "compress/encoding_codebooks.h"
#include "compress/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isnan.h>

#include <fmt/format.h>

#include <utility>

namespace compress {
namespace {

[[noreturn]] void refuse(const std::string& where, std::string message) {
  throw Error(ErrorCode::kBadFile, std::move(message), where);
}

void expect(const at::Tensor& tensor, const std::string& name, at::ScalarType dtype) {
  if (!tensor.defined()) refuse(name, "is missing");
  if (tensor.scalar_type() != dtype) {
    refuse(name, fmt::format("is {}, expected {}", c10::toString(tensor.scalar_type()),
                             c10::toString(dtype)));
  }
}

// A matrix with one scale for each `group_size` columns of each row.
void expect_blocks(const QuantizedTensor& quantized, const std::string& name) {
  const at::Tensor& scale = quantized.scale;
  if (scale.dim() == 2 && scale.size(0) == quantized.rows() &&
      scale.size(1) * quantized.group_size == quantized.columns()) {
    return;
  }
  refuse(name, fmt::format("has the sizes [{}], which are no blocks of {} in {} x {}",
                           fmt::join(scale.sizes(), ", "), quantized.group_size, quantized.rows(),
                           quantized.columns()));
}

QuantizedTensor unpack_fp8(const std::string& base, const PackedFloats& packed) {
  QuantizedTensor out;
  out.bits = 8;
  out.codebook = fp8_codebook();
  if (packed.codes.dim() != 2 || packed.codes.numel() == 0) refuse(base, "is not a matrix");
  if (packed.codes.isnan().any().item<bool>()) refuse(base, "has NaN among its elements");
  out.sizes = packed.codes.sizes().vec();
  out.fields = {packed.codes.contiguous().view(at::kByte)};
  const std::string name = base + "_scale";
  if (!packed.scale.defined()) refuse(name, "is missing");
  if (!packed.scale.is_floating_point() || c10::isFloat8Type(packed.scale.scalar_type())) {
    refuse(name, "is not floating point of 16 bits or more");
  }
  out.scale = packed.scale.numel() == 1 ? packed.scale.reshape({1, 1}) : packed.scale;
  const int64_t groups = out.scale.dim() == 2 ? out.scale.size(1) : 0;
  if (groups == 0 || out.columns() % groups != 0) refuse(name, "does not fit the columns");
  out.group_size = out.columns() / groups;
  if (packed.scale.numel() > 1) expect_blocks(out, name);
  return out;
}

QuantizedTensor unpack_fp4(const std::string& base, const PackedFloats& packed) {
  expect(packed.codes, base + "_packed", at::kByte);
  if (packed.codes.dim() != 2 || packed.codes.numel() == 0) refuse(base + "_packed", "no matrix");
  QuantizedTensor out;
  out.bits = 4;
  out.codebook = fp4_codebook();
  out.sizes = {packed.codes.size(0), 2 * packed.codes.size(1)};
  out.fields = {packed.codes.contiguous()};
  const std::string scale = base + "_scale", global_scale = base + "_global_scale";
  if (packed.global_scale.defined()) {
    expect(packed.scale, scale, at::kFloat8_e4m3fn);
    expect(packed.global_scale, global_scale, at::kFloat);
    if (packed.global_scale.numel() != 1) refuse(global_scale, "has more than one element");
    out.global_scale = packed.global_scale.reshape({}).reciprocal();
    if (!out.global_scale.isfinite().item<bool>()) refuse(global_scale, "has no reciprocal");
    out.scale = packed.scale;
    out.group_size = 16;
  } else {
    expect(packed.scale, scale, at::kByte);
    out.scale = packed.scale.contiguous().view(at::kFloat8_e8m0fnu);
    out.group_size = 32;
  }
  if (out.scale.isnan().any().item<bool>()) refuse(scale, "has NaN among its elements");
  expect_blocks(out, scale);
  return out;
}

}  // namespace

std::string_view float_layout(const QuantizedTensor& quantized) {
  if (!quantized.symmetric() || quantized.columns() % quantized.group_size != 0) return {};
  const std::string format = codebook_format(quantized);
  const auto has_blocks_of = [&](int64_t size) {
    return quantized.columns() == quantized.groups() * size &&
           quantized.scale.size(0) == quantized.rows();
  };
  if (format == "nvfp4" && has_blocks_of(16) && quantized.global_scale.defined()) {
    return kNvfp4Layout;
  }
  if (format == "mxfp4" && has_blocks_of(32) && !quantized.global_scale.defined()) {
    return kMxfp4Layout;
  }
  const bool one_scale = quantized.scale.size(0) == 1 && quantized.rows() > 1;
  const bool fp8 = format == "fp8 e4m3" && !quantized.global_scale.defined() &&
                   (!one_scale || quantized.groups() == 1);
  return fp8 ? kFp8Layout : std::string_view();
}

bool is_float_layout(std::string_view layout) {
  return layout == kNvfp4Layout || layout == kMxfp4Layout || layout == kFp8Layout ||
         layout == "float-quantized";
}

void pack_floats(const std::string& base, const QuantizedTensor& quantized, NamedTensors& tensors) {
  const std::string_view layout = float_layout(quantized);
  COMPRESS_CHECK(!layout.empty(), "the library has a layout for the weight");
  if (layout == kFp8Layout) {
    const bool whole = quantized.scale.numel() == 1;
    tensors.emplace_back(base, quantized.fields[0].view(at::kFloat8_e4m3fn));
    tensors.emplace_back(base + "_scale", whole ? quantized.scale.view({1}) : quantized.scale);
    return;
  }
  tensors.emplace_back(base + "_packed", quantized.fields[0]);
  if (layout == kMxfp4Layout) {
    tensors.emplace_back(base + "_scale", quantized.scale.view(at::kByte));
    return;
  }
  tensors.emplace_back(base + "_scale", quantized.scale);
  tensors.emplace_back(base + "_global_scale", quantized.global_scale.reciprocal().view({1}));
}

QuantizedTensor unpack_floats(const std::string& base, const PackedFloats& packed) {
  const bool fp8 = packed.codes.defined() && packed.codes.scalar_type() == at::kFloat8_e4m3fn;
  return fp8 ? unpack_fp8(base, packed) : unpack_fp4(base, packed);
}

}  // namespace compress
