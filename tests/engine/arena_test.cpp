// Buffers that are alive together never overlap, and the arena is no larger than it must be.

#include "compress/engine/arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace compress::engine {
namespace {

// The most bytes that are alive at any one step: no arena can be smaller.
int64_t peak(const std::vector<Lifetime>& lifetimes) {
  int64_t most = 0;
  for (int64_t step = 0; step < 100; ++step) {
    int64_t alive = 0;
    for (const Lifetime& lifetime : lifetimes) {
      if (lifetime.first <= step && step <= lifetime.last) alive += lifetime.bytes;
    }
    most = std::max(most, alive);
  }
  return most;
}

TEST(Arena, TakesTurnsInAChain) {
  const ArenaLayout layout = lay_out({{128, 0, 1}, {128, 1, 2}, {128, 2, 3}, {128, 3, 4}});
  EXPECT_EQ(layout.bytes, 256);
  EXPECT_EQ(layout.offsets[0], layout.offsets[2]);
  EXPECT_NE(layout.offsets[0], layout.offsets[1]);
}

TEST(Arena, KeepsAShortcutAlongsideItsBlock) {
  const ArenaLayout layout = lay_out({{640, 0, 3}, {64, 1, 2}, {64, 2, 3}, {64, 3, 4}});
  EXPECT_EQ(layout.bytes, 640 + 128);
}

TEST(Arena, AlignsToCacheLines) {
  const ArenaLayout layout = lay_out({{10, 0, 1}, {100, 0, 1}, {1, 0, 1}});
  for (const int64_t offset : layout.offsets) EXPECT_EQ(offset % 64, 0);
}

TEST(Arena, NeverOverlapsWhatIsAliveTogether) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    std::vector<Lifetime> lifetimes;
    for (int i = 0; i < 40; ++i) {
      const auto first = static_cast<int64_t>(random() % 90);
      lifetimes.push_back({static_cast<int64_t>(64 * (1 + random() % 50)), first,
                           first + static_cast<int64_t>(random() % 10)});
    }
    const ArenaLayout layout = lay_out(lifetimes);
    for (size_t a = 0; a < lifetimes.size(); ++a) {
      for (size_t b = 0; b < a; ++b) {
        if (lifetimes[a].first > lifetimes[b].last || lifetimes[b].first > lifetimes[a].last)
          continue;
        const bool apart = layout.offsets[a] + lifetimes[a].bytes <= layout.offsets[b] ||
                           layout.offsets[b] + lifetimes[b].bytes <= layout.offsets[a];
        EXPECT_TRUE(apart) << "buffers " << a << " and " << b;
      }
    }
    EXPECT_GE(layout.bytes, peak(lifetimes));
    EXPECT_LE(layout.bytes, 2 * peak(lifetimes));  // greedy by size stays near the bound
  }
}

}  // namespace
}  // namespace compress::engine
