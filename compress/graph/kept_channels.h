// Which channels of the network it was made from a model still has.
//
// Removal leaves a note in the model's metadata, `lathe.kept_channels`: for each running mean of a
// batch norm the indices that are left. So a pruned network can be compared with its original
// channel by channel.

#pragma once

#include "compress/graph/channels.h"
#include "compress/model.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace compress {

inline constexpr const char* kKeptChannelsKey = "lathe.kept_channels";

/// Notes what `set` leaves of each running mean, as indices of the network before any removal. To
/// be called before the removal.
void note_kept_channels(Model& model, const ChannelGroups& groups, const ChannelSet& set);

/// For each channel of the running mean `name` of `model`, its index in the same tensor of
/// `original`, from which `model` was made by removals. None if the notes do not say.
std::optional<std::vector<int64_t>> channels_in(const Model& original, const Model& model,
                                                const std::string& name);

}  // namespace compress
