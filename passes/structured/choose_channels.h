// Which channels go: in the order of their scores, until the budget is met.

#pragma once

#include "compress/graph/channels.h"
#include "compress/model.h"
#include "passes/structured/channel_options.h"
#include "passes/structured/channel_scores.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace compress {

/// What a budget limits, as a function of the channels that go. Less is left, less it costs.
struct CostMeter {
  std::function<double(const ChannelSet&)> cost;
  double full = 0;    ///< of the model that the recipe's step began with
  double target = 0;  ///< in the unit of `cost`
  double budget = 0;  ///< the target of the last round, for messages
  std::string unit;   ///< "multiply-accumulates"
};

/// Groups that `where` and `exact` let go.
std::vector<bool> eligible_groups(const Model& model, const ChannelGroups& groups,
                                  const ChannelOptions& options);
/// The same; throws Error(kInvalidArgument) if there is none, and says for the selected layers why.
std::vector<bool> require_eligible_groups(const Model& model, const ChannelGroups& groups,
                                          const ChannelOptions& options);

/// Channels in the order in which they go.
class ChannelOrder {
 public:
  /// Groups without scores, and those that are not eligible, stay whole. `gone` of each group's
  /// units went in earlier rounds and count towards `most`; empty: none.
  ChannelOrder(const ChannelGroups& groups, const ChannelScores& scores,
               const std::vector<bool>& eligible, const ChannelOptions& options,
               const std::vector<int64_t>& gone = {});

  size_t size() const { return order_.size(); }
  /// The first `count`, as far as each group's limits, multiples and neighbours allow.
  ChannelSet first(size_t count) const;

 private:
  struct Entry {
    double key;
    size_t group, rank;  // the unit of that rank in its group, the least of scores first
  };
  const ChannelGroups& groups_;
  const ChannelOptions& options_;
  std::vector<Entry> order_;
  std::vector<std::vector<size_t>> ranked_;  // units of a group, the least of scores first
};

/// Says that with `least`, the closest that can be reached, the budget is not.
[[noreturn]] void throw_unreachable(const CostMeter& meter, double least);

/// The fewest channels of the order with which the target is met. Throws Error(kInvalidArgument) if
/// it is not met with all, and says what is the closest that can be.
ChannelSet choose_channels(const ChannelOrder& order, const CostMeter& meter);

}  // namespace compress
