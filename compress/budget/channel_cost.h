// What a model costs once channels have gone, without removing them.

#pragma once

#include "compress/budget/budget.h"
#include "compress/graph/channels.h"
#include "compress/model.h"

#include <cstdint>
#include <optional>

namespace compress {

struct ChannelCost {
  int64_t parameters = 0;      ///< elements of all parameters
  int64_t bytes = 0;           ///< of all named tensors
  std::optional<double> macs;  ///< multiply-accumulates a sample, if all sizes are known

  friend ChannelCost operator-(const ChannelCost& a, const ChannelCost& b);
};

/// The cost of what `set` leaves; with an empty set that of the model as it is.
ChannelCost cost_without(const Model& model, const ChannelGroups& groups, const ChannelSet& set);

/// What the group's first unit saves when it goes alone. Two that go together save less than twice
/// as much, as each makes the other's rows shorter.
ChannelCost saving_of(const Model& model, const ChannelGroups& groups, const ChannelGroup& group);

/// What a budget of that kind limits, of a cost that was counted; not of a latency. Throws
/// Error(kUnsupported) if the multiply-accumulates are not known.
double limited_by(Budget::Kind kind, const ChannelCost& cost);
/// The same of a model as it is; a latency is measured for a fifth of a second.
double limited_by(Budget::Kind kind, const Model& model);

}  // namespace compress
