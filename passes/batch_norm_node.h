// Batch norms in a graph.

#pragma once

#include "compress/graph/graph.h"
#include "compress/model.h"
#include "passes/fold/fold_batch_norm.h"

#include <ATen/core/Tensor.h>

#include <string_view>

namespace compress {

bool is_batch_norm(const Node& node);
/// Whether it normalises by the batch that it sees.
bool is_training(const Node& norm);
/// The value of the argument of that name; null if it has none.
const Value* norm_value(const Node& norm, std::string_view argument);
/// The named tensor behind it; undefined if there is none or it is computed.
at::Tensor norm_tensor(const Model& model, const Node& norm, std::string_view argument);
/// All of them, and eps.
BatchNorm read_batch_norm(const Model& model, const Node& norm);

}  // namespace compress
