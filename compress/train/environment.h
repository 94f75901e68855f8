// What a training run needs from outside: data, other models, a place for checkpoints.

#pragma once

#include "compress/data/dataset.h"
#include "compress/model.h"

#include <c10/core/Device.h>

#include <filesystem>
#include <functional>
#include <string>

namespace compress {

/// Set by whoever runs a recipe with train steps.
struct TrainingEnvironment {
  /// Opens an entry of the recipe's data section. Throws Error for a name that is not there.
  std::function<DatasetPtr(const std::string& entry, bool channels_last)> open_data;
  /// Whether the recipe's data section has the entry.
  std::function<bool(const std::string& entry)> has_data;
  /// Says everything about an entry in words, for the keys of caches; null: its name is enough.
  std::function<std::string(const std::string& entry)> describe_data;
  /// Loads a teacher.
  std::function<Model(const std::string& file, const std::string& architecture)> load_model;
  /// Where checkpoints go; empty: none are written.
  std::filesystem::path checkpoints;
  /// Goes on from the checkpoint in that folder, if there is one.
  bool resume = false;
  c10::Device device = c10::Device(c10::kCPU);
};

}  // namespace compress
