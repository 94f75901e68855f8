// A pool of threads over a counter of tasks.

#include "passes/quantize/serial_workers.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <exception>
#include <vector>

namespace compress {

namespace {

// A new thread takes over the number that is set here; it must be set before there is one.
int set_one_thread() {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  return before;
}

}  // namespace

SerialWorkers::SerialWorkers() : threads_(set_one_thread()), pool_(threads_) {}

SerialWorkers::~SerialWorkers() { at::set_num_threads(threads_); }

void SerialWorkers::run(int64_t tasks, const std::function<void(size_t, int64_t)>& work) {
  std::atomic<int64_t> next = 0;
  std::vector<std::exception_ptr> failures(tasks);
  for (size_t worker = 0; worker < pool_.size(); ++worker) {
    pool_.run([&, worker] {
      at::init_num_threads();
      for (int64_t task = next++; task < tasks; task = next++) {
        try {
          work(worker, task);
        } catch (...) {
          failures[task] = std::current_exception();
        }
      }
    });
  }
  pool_.waitWorkComplete();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace compress
