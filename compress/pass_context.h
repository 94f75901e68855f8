// What a pass gets besides model and options: randomness, statistics, and ears for what it reports.

#pragma once

#include "compress/calibrate/statistics.h"

#include <ATen/core/Generator.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

class Model;
struct Step;
struct TrainingEnvironment;

/// Filled by the manager, one for each step.
class PassContext {
 public:
  /// `seed` is the recipe's, `step` the index of the step in it.
  explicit PassContext(uint64_t seed = 0, size_t step = 0) : seed_(seed), step_(step) {}

  /// A CPU generator that depends on the recipe's seed, the step and `name` only. Take one a
  /// weight, by the weight's name, so that results do not depend on the order of work.
  at::Generator generator(std::string_view name = {}) const;

  /// To be called at the start of each edit (a weight, a layer to fold): notes for messages what is
  /// worked on, and says whether the edit may be done (`--limit PASS=N` allows only the first N).
  ///   `if (!context.begin(weight.name())) break;`
  bool begin(std::string_view item);

  /// Adds to a count of the step's result: `context.count("weights_zeroed", n)`.
  void count(std::string_view name, int64_t n = 1);
  /// Sets a figure of the step's result, computed from tensors: `context.measure("rmse", x)`.
  void measure(std::string_view name, double figure);
  /// Something the user should know; goes to the caller's sink and into the step's result.
  void message(std::string text);
  /// How far the step is.
  void progress(int64_t done, int64_t total);

  /// The inputs of the recipe's calibration data, for passes that need `Needs::kInputs` and go
  /// through them on their own (compress/calibrate/walk.h). Throws Error(kInvalidArgument) if there
  /// are none.
  const BatchSource& calibration() const;
  /// What `wishes` asked for.
  const Statistics& statistics() const;

  const std::string& item() const { return item_; }
  const std::map<std::string, int64_t>& counts() const { return counts_; }
  const std::map<std::string, double>& measures() const { return measures_; }
  const std::vector<std::string>& messages() const { return messages_; }

  // Set by the manager.
  std::function<void(const std::string&)> on_message;
  std::function<void(int64_t done, int64_t total)> on_progress;
  const Statistics* collected = nullptr;
  BatchSource batches;
  const Step* step = nullptr;                     ///< the step that runs
  const TrainingEnvironment* training = nullptr;  ///< for passes that train
  const Model* original = nullptr;                ///< the model that the recipe began with
  std::string key;                                ///< of all that the result depends on
  int64_t edit_limit = std::numeric_limits<int64_t>::max();

 private:
  uint64_t seed_;
  size_t step_;
  int64_t edits_ = 0;
  std::string item_;
  std::map<std::string, int64_t> counts_;
  std::map<std::string, double> measures_;
  std::vector<std::string> messages_;
};

}  // namespace compress
