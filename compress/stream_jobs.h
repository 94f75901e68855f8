// Work that goes on beside the caller's, in order, on a thread of its own.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace compress {

/// Runs jobs one after another while the caller computes. Once a job has thrown, those behind it
/// are dropped, and whoever calls next gets its exception.
class StreamJobs {
 public:
  StreamJobs();
  /// Waits for the job that runs; those behind it are dropped.
  ~StreamJobs();
  StreamJobs(const StreamJobs&) = delete;
  StreamJobs& operator=(const StreamJobs&) = delete;

  /// Queues a job that holds `bytes` of memory until it is done.
  void add(int64_t bytes, std::function<void()> job);
  /// Waits until the unfinished jobs hold at most `bytes`; with 0 until all are done.
  void wait(int64_t bytes = 0);

 private:
  struct Job {
    int64_t bytes = 0;
    std::function<void()> run;
  };
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;  // without the one that runs
  int64_t bytes_ = 0;     // of all unfinished jobs
  bool running_ = false, closing_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace compress
