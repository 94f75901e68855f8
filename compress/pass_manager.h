// Runs the steps of a recipe on a model, and distrusts every pass.
//
// For each step the manager collects the statistics that the pass wishes for, runs it, compares
// what it says it changed and keeps with what it did, looks for weights that became NaN or
// infinite, and records options, counts and time. It neither prints nor writes files: it calls who
// asked.

#pragma once

#include "compress/calibrate/statistics.h"
#include "compress/recipe.h"
#include "compress/run_state.h"

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace compress {

struct RunOptions {
  /// Also verify the model after each step, and hold what a pass says it keeps against runs of the
  /// model on random inputs. Costs two runs of the model a step.
  bool verify = false;
  /// The inputs for statistics; may be empty when no pass wishes for any.
  BatchSource calibration;
  /// Pass id -> how many edits it may do in each of its steps (`--limit`).
  std::map<std::string, int64_t> limits;
  /// Pass ids after which `on_print` is called (`--print-after`); "all" for every pass.
  std::vector<std::string> print_after;
  /// A pass id, or the number of a step counted from 0, after which to stop (`--stop-after`).
  std::string stop_after;
  /// What train steps need; null: there can be none.
  const TrainingEnvironment* training = nullptr;
  /// The model that the recipe began with, where `model` is that of a checkpoint; the teacher
  /// `original`. Null: `model` itself.
  const Model* original = nullptr;
  /// Where an interrupted run stood; the model must be that of its checkpoint, see
  /// `require_resumable`.
  const RunState* resume = nullptr;

  std::function<void(size_t step, const Step&)> on_step_begin;
  /// After each step that is finished and checked, with all results so far: the place to save a
  /// checkpoint.
  std::function<void(const Model&, const RunState&)> on_step_end;
  std::function<void(const Model&, const StepResult&)> on_print;
  std::function<void(const std::string& message)> on_message;
  std::function<void(size_t step, int64_t done, int64_t total)> on_progress;
};

struct RunResult {
  std::string input_digest, output_digest;
  std::vector<StepResult> steps;
  bool stopped = false;  ///< by `stop_after`, before the last step
};

/// Everything that can be known to be wrong before any work: selectors that match nothing, passes
/// that refuse the model, data that is needed and absent, weights that are NaN or infinite, and
/// names in the options that the recipe lacks. Selectors behind a step that may change shapes are
/// left until their step runs.
Problems check_recipe(const Recipe& recipe, const Model& model, const RunOptions& options = {});

/// The same without a look at the weights' elements.
Problems check_steps(const Recipe& recipe, const Model& model, const RunOptions& options = {});

/// Checks, then runs all steps, and leaves `lathe.provenance` in the model's metadata: JSON with
/// version, recipe, seed, digest of the input model and the result of each step, without times, so
/// that the same run writes the same bytes. Throws Error(kInvalidArgument) with all problems found
/// before any work, and Error naming step, pass and weight when a step fails; the model is then in
/// the state that the failed step left.
RunResult run_recipe(const Recipe& recipe, Model& model, const RunOptions& options = {});

}  // namespace compress
