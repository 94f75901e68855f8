// Rounding up or down as something that gradients can choose.
//
// Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020. A weight
// w becomes scale * (clamp(floor(w / scale) + h(logit) + zero, 0, last) - zero) with h between 0
// (down) and 1 (up); a term of the loss that sharpens over time drives h to either end.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace compress {

/// h = clamp(1.2 sigmoid(logit) - 0.1, 0, 1), the rectified sigmoid (equation 23).
at::Tensor rectified_sigmoid(const at::Tensor& logits);

/// The logits with h = `fraction`, which is in [0, 1).
at::Tensor rounding_logits(const at::Tensor& fraction);

/// sum of 1 - |2 h - 1|^beta (equation 24): 0 where every h is 0 or 1.
at::Tensor rounding_penalty(const at::Tensor& shares, double beta);

/// What the penalty is at `step` of `steps`.
struct PenaltySchedule {
  double warmup = 0.2;         ///< share of the steps in which there is no penalty
  double begin = 20, end = 2;  ///< beta falls linearly from one to the other afterwards

  bool is_on(int64_t step, int64_t steps) const;
  double beta(int64_t step, int64_t steps) const;
};

}  // namespace compress
