// The threshold is found without sorting: the bits of |x| order like |x|, a sample bounds the
// threshold within a few percent of the elements, one pass over memory counts what is above the
// bounds and gathers what is between them, and the answer is selected among those. A second pass
// writes the masks. When the sample misleads (many equal values), a histogram of the leading bits
// takes over.

#include "passes/prune/keep_largest.h"

#include "compress/error.h"
#include "compress/multiversion.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

namespace compress {
namespace {

constexpr int64_t kChunk = 1 << 14;  // elements: 64 KiB of floats, in cache during its passes
constexpr int64_t kFew = 1 << 18;    // so few are all gathered, without a sample
constexpr uint32_t kInfinity = 0x7f800000;  // bits; what is above is NaN

struct Chunk {
  const uint32_t* bits;  // of floats
  int64_t size;
  bool* mask;
};

inline uint32_t magnitude(uint32_t bits) { return bits & 0x7fffffff; }

struct Band {
  uint32_t low, high;  // bits of magnitudes, both inside
};

// Counts the magnitudes above the band, appends those inside, and finds the largest of all.
COMPRESS_MULTIVERSION
int64_t scan_chunk(const uint32_t* bits, int64_t size, Band band, uint8_t* inside, uint32_t* most) {
  int32_t above = 0;
  uint32_t largest = 0;
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t key = bits[i] & 0x7fffffff;
    above += key > band.high;
    inside[i] = static_cast<uint8_t>((key >= band.low) & (key <= band.high));
    largest = key > largest ? key : largest;
  }
  *most = largest;
  return above;
}

// Marks magnitudes at or above the threshold and returns how many are equal to it.
COMPRESS_MULTIVERSION
int64_t mark_chunk(const uint32_t* bits, int64_t size, uint32_t threshold, uint8_t* mask) {
  int32_t equal = 0;
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t key = bits[i] & 0x7fffffff;
    mask[i] = static_cast<uint8_t>(key >= threshold);
    equal += key == threshold;
  }
  return equal;
}

void gather_inside(const Chunk& chunk, const uint8_t* inside, std::vector<uint32_t>& out) {
  int64_t i = 0;
  for (; i + 8 <= chunk.size; i += 8) {
    uint64_t word;
    std::memcpy(&word, inside + i, 8);
    if (word == 0) continue;
    for (int64_t j = i; j < i + 8; ++j) {
      if (inside[j]) out.push_back(magnitude(chunk.bits[j]));
    }
  }
  for (; i < chunk.size; ++i) {
    if (inside[i]) out.push_back(magnitude(chunk.bits[i]));
  }
}

struct Scan {
  int64_t above = 0;
  uint32_t most = 0;
  std::vector<uint32_t> inside;
  bool overflowed = false;  // too many inside to be worth keeping
};

// One pass over all chunks. More than `capacity` inside are given up.
Scan scan(const std::vector<Chunk>& chunks, Band band, size_t capacity) {
  Scan all;
  std::mutex mutex;
  at::parallel_for(0, static_cast<int64_t>(chunks.size()), 4, [&](int64_t begin, int64_t end) {
    Scan mine;
    std::vector<uint8_t> inside(kChunk);
    for (int64_t c = begin; c < end; ++c) {
      const Chunk& chunk = chunks[c];
      uint32_t most = 0;
      mine.above += scan_chunk(chunk.bits, chunk.size, band, inside.data(), &most);
      mine.most = std::max(mine.most, most);
      if (mine.inside.size() <= capacity) gather_inside(chunk, inside.data(), mine.inside);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    all.above += mine.above;
    all.most = std::max(all.most, mine.most);
    all.inside.insert(all.inside.end(), mine.inside.begin(), mine.inside.end());
    all.overflowed |= all.inside.size() > capacity;
  });
  return all;
}

// Bounds that hold the `count`-th largest magnitude of all `total` elements almost surely, from a
// sample of them.
Band sample_band(const std::vector<Chunk>& chunks, int64_t total, int64_t count) {
  const int64_t size = std::clamp<int64_t>(total / 256, 1 << 12, 1 << 16);
  std::vector<uint32_t> sample;
  sample.reserve(size);
  const double step = static_cast<double>(total) / static_cast<double>(size);
  uint64_t state = 0x9e3779b97f4a7c15;  // jitter, lest the stride meets the rows of a matrix
  size_t c = 0;
  int64_t start = 0;
  for (int64_t i = 0; i < size; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double within = static_cast<double>(state >> 11) * 0x1p-53;
    const auto at = static_cast<int64_t>((static_cast<double>(i) + within) * step);
    while (c + 1 < chunks.size() && at >= start + chunks[c].size) start += chunks[c++].size;
    sample.push_back(magnitude(chunks[c].bits[std::min(at - start, chunks[c].size - 1)]));
  }
  const double share = static_cast<double>(count) / static_cast<double>(total);
  const auto middle = static_cast<double>(size) * share;
  const double slack = 4 * std::sqrt(middle * (1 - share)) + 8;  // 4 standard deviations
  const auto first = static_cast<int64_t>(middle - slack);
  const auto last = static_cast<int64_t>(middle + slack);
  const auto ranked = [&](int64_t rank) {
    std::nth_element(sample.begin(), sample.begin() + rank, sample.end(), std::greater<>());
    return sample[rank];
  };
  return {last >= size ? 0 : ranked(last), first < 0 ? kInfinity : ranked(first)};
}

struct Threshold {
  uint32_t bits;          // of the least magnitude that stays
  int64_t equal_to_keep;  // how many of that magnitude stay
};

// Narrows the band by the leading bits, 11 at a time, until one magnitude is left.
Threshold threshold_by_histogram(const std::vector<Chunk>& chunks, int64_t count) {
  uint32_t prefix = 0;
  int shift = 31;
  int64_t wanted = count;
  while (shift > 0) {
    const int width = std::min(shift, 11);
    const int below = shift - width;
    std::vector<int64_t> histogram(size_t{1} << width, 0);
    std::mutex mutex;
    at::parallel_for(0, static_cast<int64_t>(chunks.size()), 4, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> mine(histogram.size(), 0);
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t i = 0; i < chunks[c].size; ++i) {
          const uint64_t key = magnitude(chunks[c].bits[i]);
          if (key >> shift == prefix) ++mine[(key >> below) & (mine.size() - 1)];
        }
      }
      const std::lock_guard<std::mutex> lock(mutex);
      for (size_t i = 0; i < mine.size(); ++i) histogram[i] += mine[i];
    });
    size_t bucket = histogram.size() - 1;
    while (histogram[bucket] < wanted) wanted -= histogram[bucket--];
    prefix = prefix << width | static_cast<uint32_t>(bucket);
    shift = below;
  }
  return {prefix, wanted};
}

// Nothing if an element is NaN.
std::optional<Threshold> find_threshold(const std::vector<Chunk>& chunks, int64_t total,
                                        int64_t count) {
  const bool sampled = total > kFew;
  const Band band = sampled ? sample_band(chunks, total, count) : Band{0, kInfinity};
  Scan found = scan(chunks, band, static_cast<size_t>(std::max(total / 8, kFew)));
  if (found.most > kInfinity) return std::nullopt;
  if (count == 0) return Threshold{kInfinity + 1, 0};
  const int64_t rank = count - found.above;  // of the threshold among those inside, from 1
  if (found.overflowed || rank < 1 || rank > static_cast<int64_t>(found.inside.size())) {
    return threshold_by_histogram(chunks, count);
  }
  const auto nth = found.inside.begin() + (rank - 1);
  std::nth_element(found.inside.begin(), nth, found.inside.end(), std::greater<>());
  const auto more = std::count_if(found.inside.begin(), nth, [&](uint32_t k) { return k > *nth; });
  return Threshold{*nth, rank - more};
}

// Writes the masks: everything above the threshold, and of what equals it the first few.
void write_masks(const std::vector<Chunk>& chunks, Threshold threshold) {
  std::vector<int64_t> equal(chunks.size(), 0);
  at::parallel_for(0, static_cast<int64_t>(chunks.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      equal[c] = mark_chunk(chunks[c].bits, chunks[c].size, threshold.bits,
                            reinterpret_cast<uint8_t*>(chunks[c].mask));
    }
  });
  int64_t left = threshold.equal_to_keep;
  for (size_t c = 0; c < chunks.size(); ++c) {
    if (equal[c] <= left) {
      left -= equal[c];
      continue;
    }
    for (int64_t i = 0; i < chunks[c].size; ++i) {
      if (magnitude(chunks[c].bits[i]) != threshold.bits) continue;
      if (left > 0) {
        --left;
      } else {
        chunks[c].mask[i] = false;
      }
    }
  }
}

[[noreturn]] void refuse_nan(const std::vector<at::Tensor>& tensors,
                             const std::vector<std::string>& names) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t bad = at::isnan(tensors[i]).sum().item<int64_t>();
    if (bad == 0) continue;
    throw Error(ErrorCode::kRunFailed,
                fmt::format("{} of {} weights are NaN", bad, tensors[i].numel()),
                i < names.size() ? names[i] : fmt::format("tensor {}", i),
                "the checkpoint is damaged or its training diverged");
  }
  COMPRESS_CHECK(false, "a NaN was seen");
}

std::vector<Chunk> chunks_of(const std::vector<at::Tensor>& floats,
                             const std::vector<at::Tensor>& masks) {
  std::vector<Chunk> chunks;
  for (size_t t = 0; t < floats.size(); ++t) {
    const auto* bits = reinterpret_cast<const uint32_t*>(floats[t].const_data_ptr<float>());
    bool* mask = masks[t].mutable_data_ptr<bool>();
    for (int64_t at = 0; at < floats[t].numel(); at += kChunk) {
      chunks.push_back({bits + at, std::min(kChunk, floats[t].numel() - at), mask + at});
    }
  }
  return chunks;
}

}  // namespace

int64_t kept_count(int64_t elements, double sparsity) {
  if (elements == 0) return 0;
  const double kept = std::nearbyint(static_cast<double>(elements) * (1 - sparsity));
  return std::clamp<int64_t>(static_cast<int64_t>(kept), 1, elements);
}

std::vector<at::Tensor> keep_largest_reference(const std::vector<at::Tensor>& tensors,
                                               int64_t count) {
  std::vector<at::Tensor> flat, masks;
  for (const at::Tensor& tensor : tensors)
    flat.push_back(tensor.reshape({-1}).abs().to(at::kDouble));
  const at::Tensor all = at::cat(flat);
  const at::Tensor order = at::argsort(all, /*stable=*/true, /*dim=*/0, /*descending=*/true);
  at::Tensor keep = at::zeros({all.numel()}, all.options().dtype(at::kBool));
  keep.index_fill_(0, order.narrow(0, 0, count), true);
  int64_t at = 0;
  for (const at::Tensor& tensor : tensors) {
    masks.push_back(keep.narrow(0, at, tensor.numel()).view(tensor.sizes()).clone());
    at += tensor.numel();
  }
  return masks;
}

std::vector<at::Tensor> keep_largest(const std::vector<at::Tensor>& tensors, int64_t count,
                                     const std::vector<std::string>& names) {
  int64_t total = 0;
  bool wide = false;
  for (const at::Tensor& tensor : tensors) {
    total += tensor.numel();
    wide |= tensor.scalar_type() == at::kDouble;
  }
  COMPRESS_CHECK(count >= 0 && count <= total, "between none and all can be kept");
  if (total == 0) return keep_largest_reference(tensors, 0);
  if (wide) {
    for (const at::Tensor& tensor : tensors) {
      if (at::isnan(tensor).any().item<bool>()) refuse_nan(tensors, names);
    }
    return keep_largest_reference(tensors, count);
  }
  std::vector<at::Tensor> floats, masks;
  for (const at::Tensor& tensor : tensors) {
    floats.push_back(tensor.detach().to(at::kCPU, at::kFloat).contiguous());
    masks.push_back(at::empty(tensor.sizes(), floats.back().options().dtype(at::kBool)));
  }
  const std::vector<Chunk> chunks = chunks_of(floats, masks);
  const std::optional<Threshold> threshold = find_threshold(chunks, total, count);
  if (!threshold) refuse_nan(tensors, names);
  write_masks(chunks, *threshold);
  return masks;
}

}  // namespace compress
