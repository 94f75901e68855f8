// The numbers in a graph that depend on how many channels there are. Private to `remove`.

#pragma once

#include "compress/graph/channels.h"
#include "compress/model.h"

#include <optional>

namespace compress {

/// A value that another has to replace once the literals of all nodes have moved.
struct Replacement {
  Value* value = nullptr;
  Value* with = nullptr;
};

/// Rewrites the literals of one node for the channels that stay, while tensors and types are still
/// the old ones.
std::optional<Replacement> move_literals(Model& model, Node& node, const ChannelGroups& groups,
                                         const ChannelSet& set);

}  // namespace compress
