// Chunks of work that threads take one after another.

#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <future>
#include <vector>

namespace compress {

/// Hands out the numbers from 0 to `count` - 1, each once, to as many threads as LibTorch would
/// use.
///
/// Not at::parallel_for: its threads get equal shares and spin while they wait for one another,
/// which takes a core from the thread that writes the last tensor. Starting one costs a fiftieth of
/// a millisecond, which sixteen chunks are worth.
class Chunks {
 public:
  explicit Chunks(int64_t count) : count_(count) {}
  /// Runs `work(*this)`, which takes chunks until there are none, here and on other threads.
  template <class Work>
  void run(const Work& work) {
    std::vector<std::future<void>> others;
    const int64_t threads = std::min<int64_t>(at::get_num_threads(), count_ / 16);
    for (int64_t i = 1; i < threads; ++i) {
      others.push_back(std::async(std::launch::async, [&] { work(*this); }));
    }
    work(*this);
    for (std::future<void>& other : others) other.get();
  }
  bool take(int64_t* chunk) { return (*chunk = next_.fetch_add(1)) < count_; }

 private:
  const int64_t count_;
  std::atomic<int64_t> next_{0};
};

}  // namespace compress
