// Random choices that depend on numbers only: the same on every machine, compiler and thread count.
//
// std::shuffle and the distributions of <random> are left to each standard library, so batches
// drawn with them would differ between machines.

#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace compress {

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014):
/// a tiny state, so that every sample of every epoch can have a stream of its own.
class SampleRandom {
 public:
  /// A stream that depends on all of `keys` and on their order, for example {seed, epoch, index}.
  explicit SampleRandom(std::initializer_list<uint64_t> keys);

  uint64_t next();
  /// Uniform in [0, bound), without bias. `bound` > 0.
  uint64_t below(uint64_t bound);
  /// Uniform in [0, 1), 53 bits.
  double uniform();

 private:
  uint64_t state_ = 0;
};

/// The numbers 0 .. n-1 in an order that depends on (seed, epoch) only.
std::vector<int64_t> permutation(int64_t n, uint64_t seed, uint64_t epoch);

}  // namespace compress
