// What a run has done so far, saved beside its checkpoint so that it can go on after a kill.

#pragma once

#include "compress/json.h"
#include "compress/pass.h"
#include "compress/recipe.h"

#include <map>
#include <string>
#include <vector>

namespace compress {

/// What one step did. Everything but `seconds` is the same for the same recipe, seed and model.
struct StepResult {
  size_t index = 0;
  std::string pass;
  Json options;  ///< all of them, as asked
  Change change = Change::kNone;
  std::map<std::string, int64_t> counts;
  std::map<std::string, double> measures;
  std::vector<std::string> messages;
  double seconds = 0;
  std::string digest;  ///< of the model after the step; empty when tensors were streamed
};

/// The result as JSON; without `seconds` when `repeatable`, for provenance.
Json step_result_json(const StepResult& result, bool repeatable = false);

/// Leaves `lathe.provenance` in a model's metadata: what was run on which input, and what came of
/// it. A model that was compressed before keeps the whole story.
void add_provenance(std::map<std::string, std::string>& metadata, const Recipe& recipe,
                    const std::string& input_digest, const std::vector<StepResult>& steps);

/// The state of a run after its first `results.size()` steps.
struct RunState {
  std::string key;           ///< `resume_key` of these steps
  std::string input_digest;  ///< of the model that the run started with
  std::vector<StepResult> results;

  size_t finished() const { return results.size(); }
  /// The digest of the model in the checkpoint.
  const std::string& model_digest() const {
    return results.empty() ? input_digest : results.back().digest;
  }
};

/// A hash of all that the first `steps` steps depend on: their options, data, seed, the version of
/// Lathe, and the input model. Equal keys mean equal results.
std::string resume_key(const Recipe& recipe, size_t steps, const std::string& input_digest);

RunState make_run_state(const Recipe& recipe, const std::string& input_digest,
                        std::vector<StepResult> results);
Json run_state_json(const RunState& state);
/// Throws Error(kBadFile) at `file` when `json` is not what `run_state_json` wrote.
RunState read_run_state(const Json& json, const std::string& file);

/// Throws Error(kInvalidArgument), saying which of recipe, input model and checkpoint has changed,
/// unless the run of `recipe` on a model of `input_digest` can go on from a checkpoint of
/// `checkpoint_digest`.
void require_resumable(const RunState& state, const Recipe& recipe, const std::string& input_digest,
                       const std::string& checkpoint_digest);

}  // namespace compress
