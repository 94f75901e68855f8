// Batches made ahead by threads, in an order that does not depend on them.

#pragma once

#include "compress/data/dataset.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

namespace compress {

struct LoaderOptions {
  int64_t batch_size = 128;
  bool shuffle = false;    ///< else in the order of the data set
  uint64_t seed = 0;       ///< of the order, and of the data set's random variants
  bool drop_last = false;  ///< leave out a last batch that is not full
  int threads = 2;         ///< that make batches ahead; 0: made by the caller when asked for
};

/// Gives the batches of one epoch after another.
///
/// Order and content depend on (data set, seed, epoch, batch_size) only, never on `threads`. At
/// most `threads + 2` finished batches wait in memory. An exception of a worker comes out of
/// `next()` in the place of its batch; the epoch can go on after it. Not to be shared by threads.
class Loader {
 public:
  /// Starts with epoch 0. Throws Error(kInvalidArgument) for a batch size below 1, negative
  /// threads, or a data set that gives no batch.
  Loader(DatasetPtr dataset, const LoaderOptions& options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Batches in an epoch.
  int64_t batches() const { return batches_; }
  const Dataset& dataset() const { return *dataset_; }

  /// Goes to batch `first_batch` of `epoch`, without making those before it; what was made ahead is
  /// dropped. To go on in the middle of an epoch: the number of batches already taken. Throws
  /// Error(kInvalidArgument) unless it is in [0, batches()]; batches() is the end of the epoch.
  void start(uint64_t epoch, int64_t first_batch = 0);

  /// The next batch; nothing at the end of the epoch.
  std::optional<Batch> next();

 private:
  struct Slot {
    std::optional<Batch> batch;
    std::exception_ptr problem;
    bool ready = false;
  };

  Batch make(int64_t batch) const;
  void work();
  void stop();

  DatasetPtr dataset_;
  LoaderOptions options_;
  int64_t batches_ = 0;
  uint64_t epoch_ = 0;
  std::vector<int64_t> order_;
  int64_t delivered_ = 0;  // batches given out or skipped

  std::vector<std::thread> workers_;
  std::mutex mutex_;                  // guards all below, and delivered_ while workers run
  std::condition_variable room_;      // a slot is free, or stop
  std::condition_variable finished_;  // a batch is ready
  std::vector<Slot> slots_;           // batch b waits in slot b % size
  int64_t claimed_ = 0;               // batches given to workers or skipped
  bool stopping_ = false;
};

}  // namespace compress
