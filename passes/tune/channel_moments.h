// Means and variances of channels, and how they move from one network to another.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace compress {

/// Mean and variance (not corrected for the number) of each channel, double [channels].
struct ChannelMoments {
  at::Tensor mean, variance;
  int64_t count = 0;  ///< elements a channel

  /// Takes in the elements of `values` [n, channels, ...] (Chan et al., "Updating formulae and a
  /// pairwise algorithm for computing sample variances", 1979).
  void add(const at::Tensor& values);
  /// The variance that a batch norm keeps: that of the population, estimated.
  at::Tensor unbiased_variance() const;
};

/// The running statistics of a batch norm, [channels].
struct RunningStatistics {
  at::Tensor mean, variance;
};

/// Moves `running`, the statistics of a network on its training data, to a compressed network, by
/// what both show on the same other data: each channel is taken to have been mapped by
/// y -> compressed.mean + r (y - original.mean) with r^2 the ratio of the variances, so that
///   mean = compressed.mean + r (running.mean - original.mean), variance = r^2 running.variance.
/// Where nothing has changed, nothing moves. A channel for which the map is no likeness (r outside
/// [1/kFarRatio, kFarRatio], a mean further than kFarShift of the original's deviations away, or an
/// original without variance) gets what was measured on the compressed network; `far`, if given,
/// receives their number.
RunningStatistics moved_statistics(const RunningStatistics& running, const ChannelMoments& original,
                                   const ChannelMoments& compressed, int64_t* far = nullptr);
inline constexpr double kFarRatio = 4, kFarShift = 4;

}  // namespace compress
