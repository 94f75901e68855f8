// Threads that each compute with one thread.
//
// Gradients of convolutions, and sums, depend on how many threads an operator works with. Work that
// is cut into a fixed number of parts, each computed by one thread, and added up in order does not:
// the same bytes on any machine size, and for small tensors it is faster, too.

#pragma once

#include <c10/core/thread_pool.h>

#include <cstddef>
#include <cstdint>
#include <functional>

namespace compress {

/// As many workers as LibTorch has threads. While it lives, LibTorch's operators use one thread
/// each, in the workers and in the thread that made it.
class SerialWorkers {
 public:
  SerialWorkers();
  ~SerialWorkers();
  SerialWorkers(const SerialWorkers&) = delete;
  SerialWorkers& operator=(const SerialWorkers&) = delete;

  size_t size() const { return pool_.size(); }
  /// Calls `work(worker, task)` for all tasks below `tasks`; two calls at the same time have
  /// different workers below `size()`. Rethrows what the first failing task (by number) threw.
  void run(int64_t tasks, const std::function<void(size_t worker, int64_t task)>& work);

 private:
  int threads_;
  c10::ThreadPool pool_;
};

}  // namespace compress
