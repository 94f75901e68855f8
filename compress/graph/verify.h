// Checks that a model is well formed: what every pass may rely on and must keep.

#pragma once

#include "compress/model.h"

#include <string>
#include <vector>

namespace compress {

struct VerifyOptions {
  /// Also run the graph (on a copy) and compare the types that it finds with the stored ones.
  bool shapes = false;
  /// Complain of tensors that nothing uses: a pass should not leave any. A program that was
  /// exported for evaluation may bring some (the counters of batch norm).
  bool unused = true;
};

/// Everything that is wrong with a model, one sentence each; empty when it is well formed:
/// - names of values, outputs and tensors (aliases included) are unique;
/// - every use has a definition that stands earlier; producers and outputs agree;
/// - arguments fit their schemas in number, type and length of lists, results in number and kind;
/// - every named tensor has its value in the graph and the reverse, with one dtype and sizes, and
///   something uses it (unless `unused` is off);
/// - updates name buffers.
std::vector<std::string> problems(const Model& model, const VerifyOptions& options = {});

/// Throws Error(kRunFailed) that lists all problems, if there are any.
void verify(const Model& model, const VerifyOptions& options = {});

}  // namespace compress
