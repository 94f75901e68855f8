// Removes channels from a model in one or several rounds, until a budget is met.

#pragma once

#include "compress/graph/channels.h"
#include "compress/model.h"
#include "compress/pass_context.h"
#include "passes/structured/channel_options.h"
#include "passes/structured/channel_scores.h"
#include "passes/structured/choose_channels.h"
#include "passes/structured/refit.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace compress {

class ChannelPruner {
 public:
  /// Scores of all groups.
  using ScoresOf = std::function<ChannelScores(const ChannelGroups& groups)>;
  /// Tells of a removal that is about to be made.
  using BeforeRemoval = std::function<void(const ChannelGroups&, const ChannelSet&)>;

  /// What the model cost before anything went, and what the budget allows.
  struct Costs {
    double full = 0, target = 0;  ///< of what the budget limits
    double macs = 0, parameters = 0;
    int64_t removed = 0;  ///< channels that went since

    at::Tensor tensor() const;  ///< double [5], for checkpoints
    static Costs from(const at::Tensor& tensor);
  };

  /// The costs that the budget's shares refer to are those of `model` now, or `costs` where the
  /// pruning goes on. Measuring a latency throws what running the model throws.
  ChannelPruner(Model& model, const ChannelOptions& options,
                const std::optional<Costs>& costs = std::nullopt);
  const Costs& costs() const { return costs_; }

  BeforeRemoval before_removal;

  /// Removes as many channels as it takes to come `progress` (0 to 1) of the way to the budget.
  /// Returns how many went. Throws Error(kInvalidArgument), with nothing changed, if no channel can
  /// go or the budget cannot be reached.
  int64_t prune(double progress, const ScoresOf& scores);

  /// Which indices of the first model's weights are left.
  const std::map<std::string, KeptDims>& kept() const { return kept_; }
  /// Adds what was asked and achieved to a step's figures.
  void report(PassContext& context) const;

 private:
  CostMeter meter(const ChannelGroups& groups, double progress) const;
  double cost(const ChannelGroups& groups, const ChannelSet& set) const;
  void divide_by_savings(const ChannelGroups& groups, ChannelScores& scores) const;
  void note_kept(const ChannelGroups& groups, const ChannelSet& set);

  Model& model_;
  const ChannelOptions& options_;
  Costs costs_;
  std::map<std::string, KeptDims> kept_;
};

}  // namespace compress
