// Multiply-accumulates of one node.

#pragma once

#include "compress/graph/graph.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace compress {

/// Sizes of a value at run time, or none when they are not known.
using SizesOf = std::function<std::optional<std::vector<int64_t>>(const Value*)>;

/// Whether the node multiplies and accumulates at all.
bool has_macs(const Node& node);

/// Multiply-accumulates of one call with operands of these sizes; none when a size is not known.
std::optional<double> node_macs(const Node& node, const SizesOf& sizes_of);

}  // namespace compress
