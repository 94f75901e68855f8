// Whether the operands of a recurrent operator fit together.

#pragma once

#include "compress/graph/graph.h"

#include <string>
#include <vector>

namespace c10 {
struct IValue;
}

namespace compress {

/// Whether the node is an lstm, gru or rnn over a padded sequence (overload `input`).
bool is_recurrent(const Node& node);

/// One sentence about the first state, weight or bias whose sizes do not fit the others; empty if
/// all do. `operands` are those of a recurrent node, in the order of its schema.
///
/// LibTorch's fast kernels believe these sizes: with wrong ones they read and write out of bounds.
std::string recurrent_problem(const Node& node, const std::vector<c10::IValue>& operands);

}  // namespace compress
