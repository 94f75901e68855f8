// N:M sparsity: of every m neighbours, the n of largest magnitude.

#include "passes/prune/keep_n_of_m.h"

#include "compress/error.h"
#include "compress/multiversion.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace compress {
namespace {

// A run's element stays if fewer than n others beat it: those larger, and equal ones before it.
// With m known when compiling, the comparisons are a handful of instructions without branches.
template <int kM>
inline void mark_run(const uint32_t* bits, bool* mask, int n) {
  uint32_t key[kM];
  for (int i = 0; i < kM; ++i) key[i] = bits[i] & 0x7fffffff;
  for (int i = 0; i < kM; ++i) {
    int beaten_by = 0;
    for (int j = 0; j < i; ++j) beaten_by += key[j] >= key[i];
    for (int j = i + 1; j < kM; ++j) beaten_by += key[j] > key[i];
    mask[i] = beaten_by < n;
  }
}

template <int kM>
COMPRESS_MULTIVERSION void mark_runs(const uint32_t* bits, int64_t runs, int n, bool* mask) {
  for (int64_t run = 0; run < runs; ++run) mark_run<kM>(bits + run * kM, mask + run * kM, n);
}

// A run of any length whose elements are `stride` apart.
void mark_run(const uint32_t* bits, int64_t length, int64_t stride, int64_t n, bool* mask,
              std::vector<int64_t>& order) {
  order.resize(length);
  for (int64_t i = 0; i < length; ++i) order[i] = i;
  const auto key = [&](int64_t i) { return bits[i * stride] & 0x7fffffff; };
  const int64_t kept = std::min(n, length);
  if (kept < length) {
    std::nth_element(order.begin(), order.begin() + kept, order.end(), [&](int64_t a, int64_t b) {
      return key(a) != key(b) ? key(a) > key(b) : a < b;
    });
  }
  for (int64_t i = 0; i < length; ++i) mask[order[i] * stride] = i < kept;
}

}  // namespace

at::Tensor keep_n_of_m(const at::Tensor& tensor, int64_t n, int64_t m, int64_t dim) {
  COMPRESS_CHECK(n > 0 && n <= m, "0 < n <= m");
  const at::Tensor floats = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  at::Tensor mask = at::empty(floats.sizes(), floats.options().dtype(at::kBool));
  if (floats.numel() == 0) return mask;
  const int64_t length = floats.size(dim), stride = floats.stride(dim);
  const auto* bits = reinterpret_cast<const uint32_t*>(floats.const_data_ptr<float>());
  bool* out = mask.mutable_data_ptr<bool>();
  const int64_t grain = std::max<int64_t>(1, (1 << 15) / length);
  at::parallel_for(0, floats.numel() / length, grain, [&](int64_t begin, int64_t end) {
    if (stride == 1 && length % m == 0 && (m == 4 || m == 8)) {
      const auto mark = m == 4 ? mark_runs<4> : mark_runs<8>;
      mark(bits + begin * length, (end - begin) * length / m, static_cast<int>(n),
           out + begin * length);
      return;
    }
    std::vector<int64_t> order;
    for (int64_t line = begin; line < end; ++line) {
      const int64_t start = line / stride * stride * length + line % stride;
      for (int64_t at = 0; at < length; at += m) {
        const int64_t offset = start + at * stride;
        mark_run(bits + offset, std::min(m, length - at), stride, n, out + offset, order);
      }
    }
  });
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
