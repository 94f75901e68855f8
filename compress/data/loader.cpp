// Batches made ahead by threads, in an order that does not depend on them.

#include "compress/data/loader.h"

#include "compress/data/random.h"
#include "compress/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace compress {

Loader::Loader(DatasetPtr dataset, const LoaderOptions& options)
    : dataset_(std::move(dataset)), options_(options) {
  if (options.batch_size < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is not a batch size, expected 1 or more", options.batch_size),
                "batch_size");
  }
  if (options.threads < 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} threads, expected 0 or more", options.threads), "threads");
  }
  const int64_t size = dataset_->size();
  batches_ = size / options.batch_size;
  if (!options.drop_last && size % options.batch_size != 0) ++batches_;
  if (batches_ == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the {} samples of {} give no batch of {}", size, dataset_->info().name,
                            options.batch_size),
                "batch_size");
  }
  start(0);
}

Loader::~Loader() { stop(); }

void Loader::start(uint64_t epoch, int64_t first_batch) {
  if (first_batch < 0 || first_batch > batches_) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("batch {} of an epoch that has {}", first_batch, batches_),
                "first_batch");
  }
  stop();
  epoch_ = epoch;
  if (options_.shuffle) {
    order_ = permutation(dataset_->size(), options_.seed, epoch);
  } else {
    order_.resize(static_cast<size_t>(dataset_->size()));
    std::iota(order_.begin(), order_.end(), int64_t{0});
  }
  delivered_ = claimed_ = first_batch;
  slots_.clear();
  slots_.resize(static_cast<size_t>(options_.threads) + 2);
  for (int i = 0; i < options_.threads; ++i) workers_.emplace_back([this] { work(); });
}

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  room_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
  stopping_ = false;
}

Batch Loader::make(int64_t batch) const {
  const int64_t first = batch * options_.batch_size;
  const auto size = static_cast<int64_t>(order_.size());
  const int64_t last = std::min(first + options_.batch_size, size);
  return dataset_->get({order_.begin() + first, order_.begin() + last}, {options_.seed, epoch_});
}

void Loader::work() {
  const auto capacity = static_cast<int64_t>(slots_.size());
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [&] {
      return stopping_ || claimed_ == batches_ || claimed_ < delivered_ + capacity;
    });
    if (stopping_ || claimed_ == batches_) return;
    const int64_t batch = claimed_++;
    lock.unlock();
    Slot made;
    try {
      made.batch = make(batch);
    } catch (...) {
      made.problem = std::current_exception();
    }
    made.ready = true;
    lock.lock();
    slots_[static_cast<size_t>(batch % capacity)] = std::move(made);
    finished_.notify_one();
  }
}

std::optional<Batch> Loader::next() {
  if (delivered_ == batches_) return std::nullopt;
  if (workers_.empty()) return make(delivered_++);
  Slot taken;
  {
    std::unique_lock lock(mutex_);
    Slot& slot = slots_[static_cast<size_t>(delivered_) % slots_.size()];
    finished_.wait(lock, [&] { return slot.ready; });
    taken = std::exchange(slot, Slot{});
    ++delivered_;
  }
  room_.notify_one();
  if (taken.problem) std::rethrow_exception(taken.problem);
  return std::move(taken.batch);
}

}  // namespace compress
