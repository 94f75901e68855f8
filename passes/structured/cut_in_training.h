// Channels that go in the middle of a training.

#pragma once

#include "compress/train/hook.h"
#include "passes/structured/channel_pruner.h"

#include <cstdint>

namespace compress {

/// `pruner.prune(progress, scores)`; the optimizer's state and averages are cut with the
/// parameters. Returns how many channels went.
int64_t cut_in_training(Training& training, ChannelPruner& pruner, double progress,
                        const ChannelPruner::ScoresOf& scores);

}  // namespace compress
