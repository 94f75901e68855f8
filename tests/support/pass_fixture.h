// What tests of passes need: run a pass by its line, look at a weight as text.

#pragma once

#include "compress/model.h"
#include "compress/pass.h"
#include "compress/pass_manager.h"
#include "compress/registry.h"

#include <string>
#include <string_view>

namespace compress::testing {

/// The passes of this build, made once.
const PassRegistry& passes();

/// Reads a recipe of one line with the passes of this build.
Recipe recipe_of(std::string_view line);

/// Runs the passes of a line (`prune.magnitude{sparsity=0.5}`) with the verifier and all checks of
/// the manager; whether any of them changed the model.
Change run_pass(std::string_view line, Model& model);

/// The same, with all that the steps reported.
RunResult run_passes(std::string_view line, Model& model, RunOptions options = {});

/// What `run_pass` throws, as text; "nothing was thrown" otherwise.
std::string refusal(std::string_view line, Model& model);

/// The weight that the layers see, its encoding undone: `[[0, -4], [3, 0]]`.
std::string effective_weight(Model& model, std::string_view name);

}  // namespace compress::testing
