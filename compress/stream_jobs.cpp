// Work that goes on beside the caller's, in order, on a thread of its own.

#include "compress/stream_jobs.h"

#include <utility>

namespace compress {

StreamJobs::StreamJobs() : thread_([this] { work(); }) {}

StreamJobs::~StreamJobs() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    jobs_.clear();
  }
  changed_.notify_all();
  thread_.join();
}

void StreamJobs::add(int64_t bytes, std::function<void()> job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    jobs_.push_back({bytes, std::move(job)});
    bytes_ += bytes;
  }
  changed_.notify_all();
}

void StreamJobs::wait(int64_t bytes) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(
      lock, [&] { return failure_ || (bytes > 0 ? bytes_ <= bytes : jobs_.empty() && !running_); });
  if (failure_) std::rethrow_exception(failure_);
}

void StreamJobs::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return closing_ || !jobs_.empty(); });
    if (closing_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    running_ = true;
    lock.unlock();
    std::exception_ptr failure;
    try {
      job.run();
    } catch (...) {
      failure = std::current_exception();
    }
    job.run = nullptr;  // what it holds goes before it counts as done
    lock.lock();
    running_ = false;
    bytes_ -= job.bytes;
    if (failure) {
      failure_ = failure;
      jobs_.clear();
    }
    changed_.notify_all();
  }
}

}  // namespace compress
