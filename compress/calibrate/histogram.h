// Counts of a tensor's elements that grow with the data.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace compress {

/// A histogram over [-kHalf * width, kHalf * width) whose bin width is a power of two: when an
/// element lies outside, the width doubles and pairs of bins merge, so the result does not depend
/// on the order of elements. At least a quarter of the bins of the larger side end up in use.
class Histogram {
 public:
  static constexpr int64_t kHalf = 4096;  ///< bins on either side of 0

  /// Adds all elements of a floating tensor. They must be finite.
  void add(const at::Tensor& values);

  bool empty() const { return total_ == 0; }
  double width() const { return width_; }
  int64_t total() const { return total_; }
  /// Counts of the bins [(i - kHalf) * width, (i - kHalf + 1) * width), i < 2 * kHalf.
  const std::vector<int64_t>& counts() const { return counts_; }
  double low() const { return low_; }    ///< the least element
  double high() const { return high_; }  ///< the greatest

  /// As one tensor, double [2 * kHalf + 3]: width, least, greatest, counts; and back.
  at::Tensor to_tensor() const;
  static Histogram from_tensor(const at::Tensor& tensor);

 private:
  void widen();

  double width_ = 0;
  double low_ = 0, high_ = 0;
  int64_t total_ = 0;
  std::vector<int64_t> counts_;
};

}  // namespace compress
