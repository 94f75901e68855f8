// Removes channels: slices tensors and moves the numbers in the graph that depend on their sizes.

#pragma once

#include "compress/graph/channels.h"
#include "compress/model.h"

namespace compress {

/// Removes the channels of `set`, which `groups` (the analysis of this very graph) says can go.
/// Every tensor loses its indices, masks and codes included, and every literal that the removed
/// channels reach moves: sizes of views, groups of convolutions, bounds of slices, the scale of
/// attention. Types follow. An empty set changes nothing. A note of what is left of batch norms
/// goes into the metadata (compress/graph/kept_channels.h).
///
/// Throws Error(kInvalidArgument) if the graph has changed since the analysis and Error(kRunFailed)
/// if a tensor has no contents.
void remove(Model& model, const ChannelGroups& groups, const ChannelSet& set);

}  // namespace compress
