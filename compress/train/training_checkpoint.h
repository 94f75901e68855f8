// A training run on disk, whole, so that it can be killed at any moment.

#pragma once

#include "compress/json.h"
#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace compress {

/// Everything that decides how a run goes on, besides recipe, data and model.
struct TrainingSnapshot {
  std::string key;        ///< of the recipe and the input model, see `resume_key`
  int threads = 1;        ///< the convolution's weight gradient depends on their number
  int64_t step = 0;       ///< optimizer steps done
  int64_t epoch = 0;      ///< epochs done
  int64_t batch = 0;      ///< batches done in the epoch after them
  Json figures;           ///< sums of the epoch that is under way
  int64_t log_bytes = 0;  ///< length of the log at this moment
  /// Optimizer, moving average, hooks, losses, random generators; names have the part in front:
  /// `optimizer/conv.weight/momentum`.
  std::map<std::string, at::Tensor> tensors;

  /// The tensors of one part, without its name.
  std::map<std::string, at::Tensor> part(const std::string& name) const;
  void add_part(const std::string& name, const std::map<std::string, at::Tensor>& part);
};

/// The folder of a run's checkpoints. Model and state are written under new names, then
/// `training.json` is renamed over the old one and the old files go: whenever the run dies,
/// `training.json` names files that are whole.
class TrainingCheckpoints {
 public:
  explicit TrainingCheckpoints(std::filesystem::path folder) : folder_(std::move(folder)) {}

  struct Saved {
    TrainingSnapshot snapshot;
    Model model;
  };
  /// The last checkpoint, if there is one. Throws Error(kBadFile) if it is damaged, and
  /// Error(kInvalidArgument), saying which, if recipe, data or input model (`key`) or the number of
  /// threads are not those of the run.
  std::optional<Saved> load(const std::string& key, int threads) const;
  /// Throws Error(kIo) if the disk is full; the last checkpoint stays.
  void save(const Model& model, const TrainingSnapshot& snapshot) const;
  /// Once the run is done.
  void remove() const;

 private:
  std::filesystem::path pointer() const { return folder_ / "training.json"; }
  void remove_but(int64_t step) const;

  std::filesystem::path folder_;
};

}  // namespace compress
