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
    int64_t removed = 0;                                ///< channels that went since
    std::map<std::string, std::vector<int64_t>> sizes;  ///< of all tensors then

    /// As tensors by name, for checkpoints.
    std::map<std::string, at::Tensor> state() const;
    /// Takes its tensors out of `state`.
    static Costs from(std::map<std::string, at::Tensor>& state);
  };

  /// The costs that the budget's shares refer to are those of `model` now, or `costs` where the
  /// pruning goes on. Measuring a latency throws what running the model throws.
  ChannelPruner(Model& model, const ChannelOptions& options,
                const std::optional<Costs>& costs = std::nullopt);
  const Costs& costs() const { return costs_; }
  /// Throws Error(kInvalidArgument) if no channel can go, or if the budget cannot be reached with
  /// all that can.
  void require_reachable() const;

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
  std::vector<int64_t> gone(const ChannelGroups& groups) const;
  void require_scores(const ChannelScores& scores, const std::vector<bool>& eligible);
  void note_kept(const ChannelGroups& groups, const ChannelSet& set);

  Model& model_;
  const ChannelOptions& options_;
  Costs costs_;
  int64_t silent_ = 0;  // groups that may go and that the criterion says nothing about
  std::map<std::string, KeptDims> kept_;
};

/// `require_reachable` before a training, for budgets that are shares: what is an amount may be in
/// reach once the steps before the training are done.
void require_reachable_share(const Model& model, const ChannelOptions& options);

}  // namespace compress
