// Counting by threads into tables of their own, added up at the end.

#include "compress/calibrate/histogram.h"

#include "compress/error.h"
#include "compress/multiversion.h"

#include <ATen/Parallel.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>

namespace compress {
namespace {

constexpr int64_t kBlock = 1024;
constexpr int kTables = 4;

// The bins of a block. Scaling by a power of two is exact, so the floor is that of x / width.
COMPRESS_MULTIVERSION
void find_bins(const float* x, int64_t size, float inverse, int32_t* bins) {
  constexpr auto kHalf = static_cast<int32_t>(Histogram::kHalf);
  for (int64_t i = 0; i < size; ++i) {
    const float scaled = x[i] * inverse;
    const auto whole = static_cast<int32_t>(scaled);
    const int32_t bin = whole - (static_cast<float>(whole) > scaled ? 1 : 0) + kHalf;
    bins[i] = std::clamp(bin, 0, 2 * kHalf - 1);
  }
}

// Neighbours often fall into one bin, zeros behind a ReLU above all; tables in turns keep one
// increment from waiting for the other.
void count_bins(const float* x, int64_t size, float inverse, std::vector<uint32_t>& tables) {
  constexpr int64_t kBins = 2 * Histogram::kHalf;
  int32_t bins[kBlock];
  for (int64_t start = 0; start < size; start += kBlock) {
    const int64_t here = std::min(kBlock, size - start);
    find_bins(x + start, here, inverse, bins);
    for (int64_t i = 0; i < here; ++i) ++tables[(i % kTables) * kBins + bins[i]];
  }
}

}  // namespace

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
  const auto inverse = static_cast<float>(1 / width_);
  constexpr int64_t kMost = int64_t{1} << 31;  // elements that a table has room for
  std::mutex together;
  at::parallel_for(0, flat.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    for (; begin < end; begin += kMost) {
      std::vector<uint32_t> tables(kTables * 2 * kHalf, 0);
      count_bins(x + begin, std::min(kMost, end - begin), inverse, tables);
      const std::lock_guard lock(together);
      for (int64_t i = 0; i < kTables * 2 * kHalf; ++i) counts_[i % (2 * kHalf)] += tables[i];
    }
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
