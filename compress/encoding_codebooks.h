// The codebooks that number formats fix, and what weights with a codebook are called.
//
// A format's codebook is a constant, the same for every weight: the graph has it once, and it costs
// no bits. Any other codebook belongs to its weight.

#pragma once

#include "compress/encoding.h"

#include <ATen/core/Tensor.h>

#include <array>
#include <string>
#include <string_view>

namespace compress {

/// NF4: quantiles of N(0, 1) scaled to [-1, 1], with an exact 0 (code 7). Dettmers et al., "QLoRA:
/// Efficient Finetuning of Quantized LLMs", NeurIPS 2023, appendix E.
inline constexpr std::array<float, 16> kNf4 = {-1.0f,
                                               -0.6961928009986877f,
                                               -0.5250730514526367f,
                                               -0.39491748809814453f,
                                               -0.28444138169288635f,
                                               -0.18477343022823334f,
                                               -0.09105003625154495f,
                                               0.0f,
                                               0.07958029955625534f,
                                               0.16093020141124725f,
                                               0.24611230194568634f,
                                               0.33791524171829224f,
                                               0.44070982933044434f,
                                               0.5626170039176941f,
                                               0.7229568362236023f,
                                               1.0f};
const at::Tensor& nf4_codebook();
/// FP4 E2M1, sign in bit 3: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. Rouhani et al.,
/// "Microscaling Data Formats for Deep Learning", 2023, and OCP MX 1.0, section 5.3.3.
const at::Tensor& fp4_codebook();
/// FP8 E4M3 by its bits. The two patterns that mean NaN, which no code is, stand for 0.
/// Micikevicius et al., "FP8 Formats for Deep Learning", 2022.
const at::Tensor& fp8_codebook();

/// `nf4_codebook`, `fp4_codebook`, `fp8_codebook`: the name under which the graph has the constant;
/// empty for a codebook that no format fixes.
std::string_view known_codebook(const at::Tensor& codebook);

/// The format of a weight with a codebook: `nf4`, `fp4`, `fp8 e4m3`, `codebook4`, and with the
/// blocks and scales that belong to them `mxfp4` (32, powers of two) and `nvfp4` (16, E4M3).
std::string codebook_format(const QuantizedTensor& quantized);

/// All scales as float: in whatever type they are stored, times the global scale.
at::Tensor float_scale(const QuantizedTensor& quantized);

}  // namespace compress
