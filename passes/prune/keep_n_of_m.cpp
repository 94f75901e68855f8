// N:M sparsity: of every m neighbours, the n of largest magnitude.

#include "passes/prune/keep_n_of_m.h"

#include "compress/error.h"
#include "compress/multiversion.h"
#include "passes/prune/chunks.h"
#include "passes/prune/empty_mask.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <limits>

namespace compress {
namespace {

static_assert(std::endian::native == std::endian::little, "four flags are stored as one word");

// The bits of a float less its sign order like its magnitude.
template <class Word>
constexpr Word kMagnitude = std::numeric_limits<Word>::max() >> 1;

// Marks runs of kM neighbours and returns the largest magnitude. An element stays if fewer than n
// others beat it: those larger, and equal ones before it. Each pair is compared once, and four
// flags are one word, so that the loop over runs has nothing but operations on whole vectors.
template <class Word, int kM>
COMPRESS_MULTIVERSION Word mark_runs(const Word* bits, int64_t runs, uint32_t n, bool* mask) {
  static_assert(kM % 4 == 0);
  constexpr int kWords = kM / 4;
  auto* flags = reinterpret_cast<uint8_t*>(mask);
  Word most = 0;
  for (int64_t run = 0; run < runs; ++run) {
    Word key[kM];
    uint32_t beaten_by[kM] = {};
#pragma GCC unroll 8
    for (int i = 0; i < kM; ++i) {
      key[i] = bits[run * kM + i] & kMagnitude<Word>;
      most = key[i] > most ? key[i] : most;
    }
#pragma GCC unroll 8
    for (int j = 1; j < kM; ++j) {
#pragma GCC unroll 8
      for (int i = 0; i < j; ++i) {
        const uint32_t first_stays = key[i] >= key[j];
        beaten_by[j] += first_stays;
        beaten_by[i] += 1 - first_stays;
      }
    }
#pragma GCC unroll 2
    for (int w = 0; w < kWords; ++w) {
      uint32_t word = 0;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        word |= static_cast<uint32_t>(beaten_by[4 * w + i] < n) << (8 * i);
      }
      std::memcpy(flags + (run * kWords + w) * 4, &word, 4);
    }
  }
  return most;
}

// One run of any length whose elements are `stride` apart; returns the largest magnitude.
template <class Word>
Word mark_run(const Word* bits, int64_t length, int64_t stride, int64_t n, bool* mask,
              std::vector<int64_t>& order) {
  const auto key = [&](int64_t i) {
    return static_cast<Word>(bits[i * stride] & kMagnitude<Word>);
  };
  order.resize(length);
  Word most = 0;
  for (int64_t i = 0; i < length; ++i) {
    order[i] = i;
    most = std::max(most, key(i));
  }
  const int64_t kept = std::min(n, length);
  if (kept < length) {
    std::nth_element(order.begin(), order.begin() + kept, order.end(), [&](int64_t a, int64_t b) {
      return key(a) != key(b) ? key(a) > key(b) : a < b;
    });
  }
  for (int64_t i = 0; i < length; ++i) mask[order[i] * stride] = i < kept;
  return most;
}

// Marks all runs along `dim` of a contiguous tensor and returns the largest magnitude.
template <class Word>
Word mark_all(const at::Tensor& tensor, int64_t n, int64_t m, int64_t dim, bool* mask) {
  const auto* bits = static_cast<const Word*>(tensor.const_data_ptr());
  const int64_t length = tensor.size(dim), stride = tensor.stride(dim);
  const int64_t lines = tensor.numel() / length;
  const int64_t at_once = std::max<int64_t>(1, (1 << 15) / length);
  const bool dense = stride == 1 && length % m == 0 && (m == 4 || m == 8);
  const auto mark_dense = m == 4 ? mark_runs<Word, 4> : mark_runs<Word, 8>;
  std::atomic<Word> largest = 0;
  Chunks((lines + at_once - 1) / at_once).run([&](Chunks& left) {
    Word most = 0;
    std::vector<int64_t> order;
    for (int64_t chunk; left.take(&chunk);) {
      const int64_t begin = chunk * at_once, end = std::min(begin + at_once, lines);
      if (dense) {
        most = std::max(most, mark_dense(bits + begin * length, (end - begin) * length / m,
                                         static_cast<uint32_t>(n), mask + begin * length));
        continue;
      }
      for (int64_t line = begin; line < end; ++line) {
        const int64_t start = line / stride * stride * length + line % stride;
        for (int64_t at = 0; at < length; at += m) {
          const int64_t offset = start + at * stride;
          most = std::max(most, mark_run(bits + offset, std::min(m, length - at), stride, n,
                                         mask + offset, order));
        }
      }
    }
    Word known = largest;
    while (known < most && !largest.compare_exchange_weak(known, most)) {
    }
  });
  return largest;
}

}  // namespace

at::Tensor keep_n_of_m(const at::Tensor& tensor, int64_t n, int64_t m, int64_t dim,
                       const std::string& name) {
  COMPRESS_CHECK(n > 0 && n <= m, "0 < n <= m");
  at::Tensor floats = tensor.detach().to(at::kCPU);
  const at::ScalarType dtype = floats.scalar_type();
  const bool narrow = dtype == at::kHalf || dtype == at::kBFloat16;
  floats = (narrow ? floats : floats.to(at::kFloat)).contiguous();
  at::Tensor mask = empty_mask(floats.sizes());
  if (floats.numel() == 0) return mask;
  bool* out = mask.mutable_data_ptr<bool>();
  const uint32_t most = narrow ? mark_all<uint16_t>(floats, n, m, dim, out)
                               : mark_all<uint32_t>(floats, n, m, dim, out);
  const uint32_t infinity = dtype == at::kHalf ? 0x7c00 : narrow ? 0x7f80 : 0x7f800000;
  if (most > infinity) {
    throw Error(ErrorCode::kRunFailed, "the weight has NaN elements", name,
                "the checkpoint is damaged or its training diverged");
  }
  return mask;
}

at::Tensor keep_n_of_m_reference(const at::Tensor& tensor, int64_t n, int64_t m, int64_t dim) {
  const at::Tensor magnitude = tensor.detach().abs().to(at::kDouble);
  at::Tensor mask = at::zeros(tensor.sizes(), tensor.options().dtype(at::kBool));
  for (int64_t at = 0; at < tensor.size(dim); at += m) {
    const int64_t length = std::min(m, tensor.size(dim) - at);
    const at::Tensor order = at::argsort(magnitude.narrow(dim, at, length), /*stable=*/true, dim,
                                         /*descending=*/true);
    at::Tensor run = mask.narrow(dim, at, length);
    run.scatter_(dim, order.narrow(dim, 0, std::min(n, length)), true);
  }
  return mask;
}

}  // namespace compress
