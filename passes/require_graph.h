// The refusal of passes that work on the graph.

#pragma once

#include "compress/error.h"
#include "compress/model.h"

#include <fmt/format.h>

#include <string>

namespace compress {

/// Throws Error(kInvalidArgument) for tensors without a graph, which have no `things`; `instead` is
/// another way out, if there is one.
inline void require_graph(const Model& model, const char* things, const char* instead = "") {
  if (!model.is_tensor_set()) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("tensors without a graph have no {}", things), "",
              fmt::format("say which network it is with --arch{}", instead));
}

}  // namespace compress
