// The numbers of learned step sizes.
//
// Esser et al., "Learned Step Size Quantization", ICLR 2020. x becomes round(clamp(x / s, low,
// high)) * s, and s is trained: its gradient is round(x / s) - x / s inside of the range, low or
// high outside (equation 3), which LibTorch's _fake_quantize_learnable_* operators compute.

#pragma once

#include "compress/encoding.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace compress {

/// The codes of a quantizer around zero, or from zero up.
struct CodeRange {
  int64_t low = 0, high = 1;
};
CodeRange code_range(int bits, bool has_negatives);

/// 2 mean|x| / sqrt(high), the first step (section 2.1), elementwise; positive also for zeros.
at::Tensor first_step(const at::Tensor& mean_of_magnitudes, const CodeRange& codes);

/// 1 / sqrt(count high): what a step's gradient is multiplied by, so that it moves at the pace of
/// the weights (section 2.2). `count` is the number of weights, or of features of a sample, that
/// share the step.
double step_gradient_factor(int64_t count, const CodeRange& codes);

/// The weight as the network saw it in training, packed. `step` has an element a row, or one.
QuantizedTensor quantize_with_step(const at::Tensor& weight, const at::Tensor& step,
                                   int64_t channel_dim, int bits);

}  // namespace compress
