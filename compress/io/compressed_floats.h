// Weights with floating codes in the layouts of the compressed-tensors library.
//
// FP4 is packed two codes a byte, `M.weight_packed` (uint8 [rows, columns / 2]), with
// `M.weight_scale`: E4M3 and the reciprocal `M.weight_global_scale` (nvfp4-pack-quantized), or
// bytes of exponents (mxfp4-pack-quantized). FP8 is `M.weight` itself (naive-quantized).

#pragma once

#include "compress/encoding.h"
#include "compress/io/safetensors.h"

#include <string>
#include <string_view>

namespace compress {

inline constexpr std::string_view kNvfp4Layout = "nvfp4-pack-quantized";
inline constexpr std::string_view kMxfp4Layout = "mxfp4-pack-quantized";
inline constexpr std::string_view kFp8Layout = "naive-quantized";

/// The layout for a weight with a codebook; empty if the library has none.
std::string_view float_layout(const QuantizedTensor& quantized);

/// Whether files say so of weights that `unpack_floats` understands.
bool is_float_layout(std::string_view layout);

/// Appends `<base>`, or `<base>_packed`, with its scales to `tensors`; `base` is `M.weight`.
void pack_floats(const std::string& base, const QuantizedTensor& quantized, NamedTensors& tensors);

/// The tensors of one weight in a file; undefined where it has none.
struct PackedFloats {
  at::Tensor codes, scale, global_scale;
};

/// Codes, codebook and scales; `sizes` is the matrix, dtype float. Throws Error(kBadFile) at `base`
/// if sizes or types do not fit.
QuantizedTensor unpack_floats(const std::string& base, const PackedFloats& packed);

}  // namespace compress
