// Taps: named places of a graph whose values are kept while a model runs.

#pragma once

#include "compress/train/loss.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace compress {

class Model;
class Value;

/// The value that a tap's text names, and what to know about the choice.
struct TapPlace {
  const Value* value = nullptr;
  std::string note;  ///< empty, or why it is this one of several that could be meant
};

/// Finds the value that `text` names, the first of these that there is:
///
/// - `layer2`, `layer2.0.conv1`: a module path. The value is the last tensor that the module (with
///   those inside it) computes and something outside of it reads or the model returns; if nothing
///   does, the last tensor that it computes.
/// - `linear:input`: the first tensor from outside, other than weights, that the module reads.
/// - the name of a value in the graph, of one of the model's outputs, or `input` for the model's
///   first input.
///
/// Throws Error(kInvalidArgument) with the nearest name if it names nothing, or something that is
/// not computed from the inputs of the model.
TapPlace find_tap(const Model& model, std::string_view text);

/// The places of one model, looked up once (and again after the graph was edited).
class Taps {
 public:
  /// Keeps a reference to `model`, which must outlive the taps. Throws as `find_tap` does.
  Taps(const Model& model, std::vector<std::string> texts);

  /// Runs the model and keeps the values at the taps, under their texts. Gradients flow through
  /// them as the calling thread has it.
  Activations run(const std::vector<at::Tensor>& inputs);

  const std::vector<std::string>& texts() const { return texts_; }
  /// For each tap whose text could mean several places, a sentence on which was taken.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  void resolve();

  const Model* model_;
  std::vector<std::string> texts_, notes_;
  std::unordered_map<const Value*, std::vector<size_t>> taps_;  // indices of texts
  uint64_t version_ = 0;                                        // of the graph
};

/// `Taps(model, texts).run(inputs)`, for a single run.
Activations run_with_taps(const Model& model, const std::vector<at::Tensor>& inputs,
                          const std::vector<std::string>& texts);

}  // namespace compress
