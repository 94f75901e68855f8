// Random choices that depend on numbers only: the same on every machine, compiler and thread count.

#include "compress/data/random.h"

#include <cstddef>
#include <numeric>
#include <utility>

namespace compress {

SampleRandom::SampleRandom(std::initializer_list<uint64_t> keys) {
  for (const uint64_t key : keys) state_ = next() ^ key;
}

uint64_t SampleRandom::next() {
  state_ += 0x9e3779b97f4a7c15u;  // the increment and the mixing constants of the paper
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t SampleRandom::below(uint64_t bound) {
  // Rejects the incomplete last stretch of the 64-bit range: no value is favoured.
  const uint64_t incomplete = (0 - bound) % bound;
  uint64_t value = next();
  while (value < incomplete) value = next();
  return value % bound;
}

double SampleRandom::uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

std::vector<int64_t> permutation(int64_t n, uint64_t seed, uint64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  SampleRandom random({seed, epoch});
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

}  // namespace compress
