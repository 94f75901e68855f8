// The numbers of AdaRound.

#include "passes/quantize/adaptive_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/sigmoid.h>

#include <algorithm>

namespace compress {
namespace {

// The sigmoid is stretched to this interval and cut, so that 0 and 1 are reached (section 3).
constexpr double kLow = -0.1, kHigh = 1.1;

}  // namespace

at::Tensor rectified_sigmoid(const at::Tensor& logits) {
  return at::sigmoid(logits).mul(kHigh - kLow).add(kLow).clamp(0, 1);
}

at::Tensor rounding_logits(const at::Tensor& fraction) {
  return -((kHigh - kLow) / (fraction - kLow) - 1).log();
}

at::Tensor rounding_penalty(const at::Tensor& shares, double beta) {
  return (1 - (2 * shares - 1).abs().pow(beta)).sum();
}

bool PenaltySchedule::is_on(int64_t step, int64_t steps) const {
  return static_cast<double>(step) >= warmup * static_cast<double>(steps);
}

double PenaltySchedule::beta(int64_t step, int64_t steps) const {
  const double start = warmup * static_cast<double>(steps);
  const double left = static_cast<double>(steps) - start;
  const double done = left <= 0 ? 1 : (static_cast<double>(step) - start) / left;
  return end + (begin - end) * (1 - std::clamp(done, 0.0, 1.0));
}

}  // namespace compress
