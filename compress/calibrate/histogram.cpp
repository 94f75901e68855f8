// Counting by threads into tables of their own, added up at the end.

#include "compress/calibrate/histogram.h"

#include "compress/error.h"

#include <ATen/Parallel.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

namespace compress {

void Histogram::add(const at::Tensor& values) {
  if (values.numel() == 0) return;
  const at::Tensor flat = values.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto [least, greatest] = at::aminmax(flat);
  const double low = least.item<double>(), high = greatest.item<double>();
  COMPRESS_CHECK(std::isfinite(low) && std::isfinite(high), "only finite elements are counted");
  low_ = total_ == 0 ? low : std::min(low_, low);
  high_ = total_ == 0 ? high : std::max(high_, high);

  // The smallest power of two that has room for this batch; zeros alone fit into any.
  const double reach = std::max(-low, std::nextafter(high, std::numeric_limits<double>::max()));
  double width = std::ldexp(1.0, -126);
  if (reach > width * kHalf)
    width = std::ldexp(1.0, static_cast<int>(std::ceil(std::log2(reach / kHalf))));
  while (high >= width * kHalf || -low > width * kHalf) width *= 2;
  if (counts_.empty()) {
    counts_.assign(2 * kHalf, 0);
    width_ = width;
  }
  while (width_ < width) widen();

  const float* x = flat.const_data_ptr<float>();
  const double inverse = 1 / width_;
  std::mutex together;
  at::parallel_for(0, flat.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> mine(2 * kHalf, 0);
    for (int64_t i = begin; i < end; ++i) {
      const auto bin = static_cast<int64_t>(std::floor(x[i] * inverse)) + kHalf;
      ++mine[std::clamp<int64_t>(bin, 0, 2 * kHalf - 1)];
    }
    const std::lock_guard lock(together);
    for (int64_t i = 0; i < 2 * kHalf; ++i) counts_[i] += mine[i];
  });
  total_ += flat.numel();
}

// Bins 2j and 2j + 1, counted from 0, become bin j; the same below 0.
void Histogram::widen() {
  std::vector<int64_t> merged(2 * kHalf, 0);
  for (int64_t i = 0; i < 2 * kHalf; ++i) {
    const int64_t bin = i - kHalf;
    const int64_t into = bin >= 0 ? bin / 2 : (bin - 1) / 2;
    merged[into + kHalf] += counts_[i];
  }
  counts_ = std::move(merged);
  width_ *= 2;
}

at::Tensor Histogram::to_tensor() const {
  at::Tensor tensor = at::empty({2 * kHalf + 3}, at::kDouble);
  double* out = tensor.mutable_data_ptr<double>();
  out[0] = width_;
  out[1] = low_;
  out[2] = high_;
  for (int64_t i = 0; i < 2 * kHalf; ++i) {
    out[3 + i] = counts_.empty() ? 0 : static_cast<double>(counts_[i]);
  }
  return tensor;
}

Histogram Histogram::from_tensor(const at::Tensor& tensor) {
  COMPRESS_CHECK(tensor.numel() == 2 * kHalf + 3 && tensor.scalar_type() == at::kDouble,
                 "this is not a histogram");
  const double* in = tensor.const_data_ptr<double>();
  Histogram histogram;
  histogram.width_ = in[0];
  histogram.low_ = in[1];
  histogram.high_ = in[2];
  histogram.counts_.resize(2 * kHalf);
  for (int64_t i = 0; i < 2 * kHalf; ++i) {
    histogram.counts_[i] = static_cast<int64_t>(in[3 + i]);
    histogram.total_ += histogram.counts_[i];
  }
  return histogram;
}

}  // namespace compress
