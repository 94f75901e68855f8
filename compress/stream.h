// Runs a recipe on a set of tensors larger than memory, one tensor at a time.

#pragma once

#include "compress/budget/cost.h"
#include "compress/model.h"
#include "compress/recipe.h"
#include "compress/run_state.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace compress {

struct StreamOptions {
  std::function<void(const std::string& message)> on_message;
  std::function<void(int64_t done_bytes, int64_t total_bytes)> on_progress;
};

/// What came of it. The costs are of the tensors as they were read and as they were written.
struct StreamResult {
  std::vector<StepResult> steps;  ///< without digests, as there is no model between the steps
  std::string input_digest;
  ModelCost before, after;
  std::vector<std::string> notes;
};

/// Whether every step needs to see one weight at a time, and neither data nor training.
bool can_stream(const Recipe& recipe);
/// Whether the model is tensors and nothing else: no graph, no encodings.
bool can_stream(const Model& model);

/// Runs all steps on each tensor of `model` in turn and writes what comes out to the .safetensors
/// file `output`: the tensors that `run_recipe` and `save_model` would write. A tensor is written
/// while the next one is worked on, so resident memory stays near the two largest tensors; pages of
/// the input are given back. Checks as `run_recipe` does, and finds weights that are not finite
/// when their turn comes; then, as after any error, there is no output file. A step's measure is
/// the mean of that of its weights, by elements.
StreamResult stream_recipe(const Recipe& recipe, const Model& model,
                           const std::filesystem::path& output, const StreamOptions& options = {});

}  // namespace compress
