// Labels of all channels of a model, as its operators demand them.

#pragma once

#include "compress/graph/channels_rules.h"

namespace compress {

struct PropagatedChannels {
  ChannelLabels labels;  ///< solved
  ChannelMap values;     ///< of every tensor value
  SizeMap sizes;
};

/// Gives every dimension of every named tensor labels of its own and follows them through the
/// graph.
PropagatedChannels propagate_channels(const Model& model);

}  // namespace compress
