// The threshold is found without sorting: the bits of |x| order like |x|, a sample bounds the
// threshold within a few percent of the elements, one pass over memory counts what is above the
// bounds and gathers what is between them, and the answer is selected among those. A second pass
// writes the masks. When the sample misleads (many equal values), a histogram of the leading bits
// takes over.

#include "passes/prune/keep_largest.h"

#include "compress/error.h"
#include "compress/multiversion.h"
#include "passes/prune/chunks.h"
#include "passes/prune/empty_mask.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <string>

namespace compress {
namespace {

constexpr int64_t kChunk = 1 << 14;  // elements: at most 64 KiB, in cache during its passes
constexpr int64_t kFew = 1 << 18;    // so few are all gathered, without a sample

template <class Word>
struct Chunk {
  const Word* bits;  // of floats
  int64_t size;
  bool* mask;
};
template <class Word>
using ChunkList = std::vector<Chunk<Word>>;

// The bits of a float less its sign, which order like its magnitude. A Word is as wide as the
// float.
template <class Word>
constexpr Word kMagnitude = std::numeric_limits<Word>::max() >> 1;

template <class Word>
struct Band {
  Word low, high;  // bits of magnitudes, both inside
};

// Counts the magnitudes above the band, marks those inside, and finds the largest of all.
template <class Word>
COMPRESS_MULTIVERSION int64_t scan_chunk(const Word* bits, int64_t size, Band<Word> band,
                                         uint8_t* inside, Word* most) {
  int32_t above = 0;
  Word largest = 0;
  for (int64_t i = 0; i < size; ++i) {
    const Word key = bits[i] & kMagnitude<Word>;
    above += key > band.high;
    inside[i] = static_cast<uint8_t>((key >= band.low) & (key <= band.high));
    largest = key > largest ? key : largest;
  }
  *most = largest;
  return above;
}

// Marks magnitudes at or above the threshold and returns how many are equal to it.
template <class Word>
COMPRESS_MULTIVERSION int64_t mark_chunk(const Word* bits, int64_t size, Word threshold,
                                         uint8_t* mask) {
  int32_t equal = 0;
  for (int64_t i = 0; i < size; ++i) {
    const Word key = bits[i] & kMagnitude<Word>;
    mask[i] = static_cast<uint8_t>(key >= threshold);
    equal += key == threshold;
  }
  return equal;
}

// Writes the magnitudes inside the band to `out` and returns their end. Few are, and which is not
// to be foretold: all eight of a word are written, and only those inside count.
template <class Word>
Word* gather_inside(const Chunk<Word>& chunk, const uint8_t* inside, Word* out) {
  const auto gather = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      *out = chunk.bits[i] & kMagnitude<Word>;
      out += inside[i];
    }
  };
  int64_t i = 0;
  for (; i + 8 <= chunk.size; i += 8) {
    uint64_t word;
    std::memcpy(&word, inside + i, 8);
    if (word != 0) gather(i, i + 8);
  }
  gather(i, chunk.size);
  return out;
}

template <class Word>
struct Scan {
  int64_t above = 0;
  Word most = 0;
  std::vector<Word> inside;
  bool overflowed = false;  // too many inside to be worth keeping
};

// One pass over all chunks. More than `capacity` inside are given up.
template <class Word>
Scan<Word> scan(const ChunkList<Word>& chunks, Band<Word> band, size_t capacity) {
  Scan<Word> all;
  std::mutex mutex;
  Chunks(static_cast<int64_t>(chunks.size())).run([&](Chunks& left) {
    Scan<Word> mine;
    std::vector<uint8_t> inside(kChunk);
    std::vector<Word> gathered(kChunk);
    for (int64_t c; left.take(&c);) {
      const Chunk<Word>& chunk = chunks[c];
      Word most = 0;
      mine.above += scan_chunk(chunk.bits, chunk.size, band, inside.data(), &most);
      mine.most = std::max(mine.most, most);
      if (mine.inside.size() > capacity) continue;
      Word* begin = gathered.data();
      mine.inside.insert(mine.inside.end(), begin, gather_inside(chunk, inside.data(), begin));
    }
    const std::lock_guard<std::mutex> lock(mutex);
    all.above += mine.above;
    all.most = std::max(all.most, mine.most);
    all.inside.insert(all.inside.end(), mine.inside.begin(), mine.inside.end());
    all.overflowed |= all.inside.size() > capacity;
  });
  return all;
}

template <class Word>
struct Threshold {
  Word bits;              // of the least magnitude that stays
  int64_t equal_to_keep;  // how many of that magnitude stay
};

// The `rank`-th largest (from 1) of keys that all lie in the band. Counting their leading bits
// leaves few to select among.
template <class Word>
Threshold<Word> select(std::vector<Word>& keys, int64_t rank, Band<Word> band) {
  constexpr int kBucketBits = 12;
  const uint32_t span = band.high - band.low;
  const int shift = std::max(0, static_cast<int>(std::bit_width(span)) - kBucketBits);
  const auto bucket_of = [&](Word key) { return static_cast<size_t>(key - band.low) >> shift; };
  std::vector<int64_t> counts((span >> shift) + 1, 0);
  for (const Word key : keys) ++counts[bucket_of(key)];
  size_t bucket = counts.size() - 1;
  while (counts[bucket] < rank) rank -= counts[bucket--];
  const auto end =
      std::partition(keys.begin(), keys.end(), [&](Word key) { return bucket_of(key) == bucket; });
  const auto nth = keys.begin() + (rank - 1);
  std::nth_element(keys.begin(), nth, end, std::greater<>());
  return {*nth, rank - std::count_if(keys.begin(), nth, [&](Word key) { return key > *nth; })};
}

// Bounds that hold the `count`-th largest magnitude of all `total` elements almost surely, from a
// sample of them.
template <class Word>
Band<Word> sample_band(const ChunkList<Word>& chunks, int64_t total, int64_t count, Word infinity) {
  const int64_t size = std::clamp<int64_t>(total / 256, 1 << 12, 1 << 16);
  std::vector<Word> sample;
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
    sample.push_back(chunks[c].bits[std::min(at - start, chunks[c].size - 1)] & kMagnitude<Word>);
  }
  const double share = static_cast<double>(count) / static_cast<double>(total);
  const auto middle = static_cast<double>(size) * share;
  const double slack = 4 * std::sqrt(middle * (1 - share)) + 8;  // 4 standard deviations
  const auto first = static_cast<int64_t>(middle - slack);
  const auto last = static_cast<int64_t>(middle + slack);
  const auto ranked = [&](int64_t rank) {
    return select(sample, rank + 1, Band<Word>{0, kMagnitude<Word>}).bits;
  };
  return {last >= size ? Word{0} : ranked(last), first < 0 ? infinity : ranked(first)};
}

// Narrows the band by the leading bits, 11 at a time, until one magnitude is left.
template <class Word>
Threshold<Word> threshold_by_histogram(const ChunkList<Word>& chunks, int64_t count) {
  uint32_t prefix = 0;
  int shift = std::numeric_limits<Word>::digits - 1;
  int64_t wanted = count;
  while (shift > 0) {
    const int width = std::min(shift, 11);
    const int below = shift - width;
    std::vector<int64_t> histogram(size_t{1} << width, 0);
    std::mutex mutex;
    Chunks(static_cast<int64_t>(chunks.size())).run([&](Chunks& left) {
      std::vector<int64_t> mine(histogram.size(), 0);
      for (int64_t c; left.take(&c);) {
        for (int64_t i = 0; i < chunks[c].size; ++i) {
          const uint64_t key = chunks[c].bits[i] & kMagnitude<Word>;
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
  return {static_cast<Word>(prefix), wanted};
}

// Nothing if an element is NaN: its bits are above those of infinity.
template <class Word>
std::optional<Threshold<Word>> find_threshold(const ChunkList<Word>& chunks, int64_t total,
                                              int64_t count, Word infinity) {
  const bool sampled = total > kFew;
  const Band<Word> band =
      sampled ? sample_band(chunks, total, count, infinity) : Band<Word>{0, infinity};
  Scan<Word> found = scan(chunks, band, static_cast<size_t>(std::max(total / 8, kFew)));
  if (found.most > infinity) return std::nullopt;
  if (count == 0) return Threshold<Word>{static_cast<Word>(infinity + 1), 0};
  const int64_t rank = count - found.above;  // of the threshold among those inside, from 1
  if (found.overflowed || rank < 1 || rank > static_cast<int64_t>(found.inside.size())) {
    return threshold_by_histogram(chunks, count);
  }
  return select(found.inside, rank, band);
}

// Writes the masks: everything above the threshold, and of what equals it the first few.
template <class Word>
void write_masks(const ChunkList<Word>& chunks, Threshold<Word> threshold) {
  std::vector<int64_t> equal(chunks.size(), 0);
  Chunks(static_cast<int64_t>(chunks.size())).run([&](Chunks& left) {
    for (int64_t c; left.take(&c);) {
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
      if ((chunks[c].bits[i] & kMagnitude<Word>) != threshold.bits) continue;
      if (left > 0) {
        --left;
      } else {
        chunks[c].mask[i] = false;
      }
    }
  }
}

// Writes the masks of contiguous floats of one type; false if an element is NaN.
template <class Word>
bool mark_largest(const std::vector<at::Tensor>& floats, const std::vector<at::Tensor>& masks,
                  int64_t total, int64_t count, Word infinity) {
  ChunkList<Word> chunks;
  for (size_t t = 0; t < floats.size(); ++t) {
    const auto* bits = static_cast<const Word*>(floats[t].const_data_ptr());
    bool* mask = masks[t].mutable_data_ptr<bool>();
    for (int64_t at = 0; at < floats[t].numel(); at += kChunk) {
      chunks.push_back({bits + at, std::min(kChunk, floats[t].numel() - at), mask + at});
    }
  }
  const auto threshold = find_threshold(chunks, total, count, infinity);
  if (threshold) write_masks(chunks, *threshold);
  return threshold.has_value();
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

// 16-bit floats are compared as they are if there is nothing else.
at::ScalarType common_type(const std::vector<at::Tensor>& tensors) {
  const at::ScalarType first = tensors[0].scalar_type();
  const bool same = std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& tensor) {
    return tensor.scalar_type() == first;
  });
  return same && (first == at::kHalf || first == at::kBFloat16) ? first : at::kFloat;
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
  const at::ScalarType dtype = common_type(tensors);
  std::vector<at::Tensor> floats, masks;
  for (const at::Tensor& tensor : tensors) {
    floats.push_back(tensor.detach().to(at::kCPU, dtype).contiguous());
    masks.push_back(empty_mask(tensor.sizes()));
  }
  const bool done = dtype == at::kFloat
                        ? mark_largest<uint32_t>(floats, masks, total, count, 0x7f800000)
                        : mark_largest<uint16_t>(floats, masks, total, count,
                                                 dtype == at::kHalf ? 0x7c00 : 0x7f80);
  if (!done) refuse_nan(tensors, names);
  return masks;
}

}  // namespace compress
