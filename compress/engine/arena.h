// Where in one block of memory each buffer lies.

#pragma once

#include <cstdint>
#include <vector>

namespace compress::engine {

/// A buffer that is needed from step `first` to step `last`, both included.
struct Lifetime {
  int64_t bytes = 0;
  int64_t first = 0, last = 0;
};

struct ArenaLayout {
  std::vector<int64_t> offsets;  ///< one a lifetime, multiples of 64 bytes
  int64_t bytes = 0;
};

/// First fit by decreasing size: each buffer gets the lowest place that no buffer alive at the same
/// time overlaps. Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
/// MLSys workshop 2020, algorithm "greedy by size".
ArenaLayout lay_out(const std::vector<Lifetime>& lifetimes);

}  // namespace compress::engine
