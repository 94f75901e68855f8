// Means and variances of channels, and how they move from one network to another.

#include "passes/tune/channel_moments.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/var_mean.h>
#include <ATen/ops/where.h>

#include <algorithm>

namespace compress {

void ChannelMoments::add(const at::Tensor& values) {
  const at::Tensor rows = values.transpose(0, 1).flatten(1);
  const int64_t more = rows.size(1);
  if (more == 0) return;
  const auto [spread, centre] = at::var_mean(rows.to(at::kDouble), at::IntArrayRef{1}, 0);
  if (count == 0) {
    mean = centre;
    variance = spread;
    count = more;
    return;
  }
  const auto old = static_cast<double>(count), total = static_cast<double>(count + more);
  const double share = static_cast<double>(more) / total;
  const at::Tensor delta = centre - mean;
  variance = variance * (old / total) + spread * share + delta.square() * (share * old / total);
  mean = mean + delta * share;
  count += more;
}

at::Tensor ChannelMoments::unbiased_variance() const {
  const auto n = static_cast<double>(count);
  return variance * (n / std::max(n - 1, 1.0));
}

RunningStatistics moved_statistics(const RunningStatistics& running, const ChannelMoments& original,
                                   const ChannelMoments& compressed, int64_t* far) {
  const at::Tensor ratio = compressed.variance / original.variance;  // r^2; NaN or infinite at 0
  const at::Tensor deviation = original.variance.sqrt();
  const at::Tensor near =
      ratio.ge(1 / (kFarRatio * kFarRatio))
          .logical_and(ratio.le(kFarRatio * kFarRatio))
          .logical_and((compressed.mean - original.mean).abs() <= kFarShift * deviation)
          .logical_and(original.variance > 0);
  if (far != nullptr) *far = near.logical_not().sum().item<int64_t>();
  const at::Tensor mean = running.mean.to(at::kDouble), variance = running.variance.to(at::kDouble);
  const at::Tensor moved = compressed.mean + ratio.sqrt() * (mean - original.mean);
  return {at::where(near, moved, compressed.mean).to(running.mean.scalar_type()),
          at::where(near, ratio * variance, compressed.unbiased_variance())
              .to(running.variance.scalar_type())};
}

}  // namespace compress
