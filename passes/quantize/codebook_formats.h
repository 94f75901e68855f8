// Weights in number formats with a codebook: NF4, FP8, MXFP4, NVFP4.
//
// Each block of weights is divided by a scale, and each quotient becomes the nearest value of the
// format's codebook (compress/encoding_codebooks.h). No data, one reading of the weight.

#pragma once

#include "compress/encoding.h"
#include "compress/options.h"

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// What the codes of a weight stand for.
enum class WeightFormat {
  kInt,    ///< integers (round_to_nearest.h)
  kNf4,    ///< 16 quantiles of a normal distribution times the block's greatest magnitude
  kFp8,    ///< E4M3 times absmax / 448
  kMxfp4,  ///< E2M1 in blocks of 32 times a power of two
  kNvfp4,  ///< E2M1 in blocks of 16 times an E4M3 scale, times one float for the tensor
};
inline std::vector<std::string_view> option_names(WeightFormat) {
  return {"int", "nf4", "fp8", "mxfp4", "nvfp4"};
}

/// Bits of a code; 0 for kInt, which has no width of its own.
int format_bits(WeightFormat format);
/// What shares a scale unless something else is asked for.
Granularity format_granularity(WeightFormat format);
/// Whether the format is defined for other granularities, too.
bool has_free_granularity(WeightFormat format);

// Weights are floating point, rows lie along `channel_dim`; blocks are runs of columns of the
// matrix (see QuantizedTensor), the last one of a row may be shorter. A block of zeros has scale 1
// (NVFP4: the least scale). All throw Error(kRunFailed) at `name` if an element is not finite.

/// Scales are the greatest magnitudes. Halfway between two values the lower one is taken, as in
/// bitsandbytes. Dettmers et al., "QLoRA", NeurIPS 2023.
QuantizedTensor quantize_nf4(const at::Tensor& weight, int64_t channel_dim,
                             const Granularity& granularity, const std::string& name = {});
/// Micikevicius et al., "FP8 Formats for Deep Learning", 2022; half to even.
QuantizedTensor quantize_fp8(const at::Tensor& weight, int64_t channel_dim,
                             const Granularity& granularity, const std::string& name = {});
/// Scale 2^(floor(log2 absmax) - 2), at least 2^-126, so that elements between 6 and 8 times it
/// saturate; half to even. Rouhani et al., "Microscaling Data Formats for Deep Learning", 2023,
/// algorithm 1.
QuantizedTensor quantize_mxfp4(const at::Tensor& weight, int64_t channel_dim,
                               const std::string& name = {});
/// Scale E4M3(absmax / 6 / g) times g = absmax of the tensor / (448 * 6), rounded to the
/// reciprocal of a float, which is what files hold. Without `tensor_scale`, g is 1. NVIDIA,
/// "Pretraining Large Language Models with NVFP4", 2025, appendix C.
QuantizedTensor quantize_nvfp4(const at::Tensor& weight, int64_t channel_dim,
                               bool tensor_scale = true, const std::string& name = {});

/// In a format other than kInt.
QuantizedTensor quantize_to(WeightFormat format, const at::Tensor& weight, int64_t channel_dim,
                            const Granularity& granularity, const std::string& name = {});

}  // namespace compress
