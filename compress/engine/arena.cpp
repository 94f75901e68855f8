// Where in one block of memory each buffer lies.

#include "compress/engine/arena.h"

#include <algorithm>
#include <numeric>

namespace compress::engine {
namespace {

constexpr int64_t kAlignment = 64;  // a cache line, and the width of an AVX-512 register

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool alive_together(const Lifetime& a, const Lifetime& b) {
  return a.first <= b.last && b.first <= a.last;
}

}  // namespace

ArenaLayout lay_out(const std::vector<Lifetime>& lifetimes) {
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
  ArenaLayout layout;
  layout.offsets.resize(lifetimes.size());
  std::vector<size_t> placed;  // by offset
  for (const size_t next : order) {
    const int64_t bytes = aligned(lifetimes[next].bytes);
    int64_t offset = 0;
    for (const size_t other : placed) {
      if (!alive_together(lifetimes[next], lifetimes[other])) continue;
      if (layout.offsets[other] >= offset + bytes) break;
      offset = std::max(offset, layout.offsets[other] + aligned(lifetimes[other].bytes));
    }
    layout.offsets[next] = offset;
    layout.bytes = std::max(layout.bytes, offset + bytes);
    const auto place =
        std::upper_bound(placed.begin(), placed.end(), offset,
                         [&](int64_t at, size_t other) { return at < layout.offsets[other]; });
    placed.insert(place, next);
  }
  return layout;
}

}  // namespace compress::engine
