// Removes channels until a budget is met.
//
// Channels that depend on one another go together (compress/graph/channels.h), so it works on any
// network; which go first is a matter of the criterion. What was lost without training comes back
// in good part by `compensate` and by `tune.batch_norm` behind it.

#include "compress/pass.h"
#include "compress/train/environment.h"
#include "passes/require_graph.h"
#include "passes/structured/channel_activity.h"
#include "passes/structured/channel_gradients.h"
#include "passes/structured/channel_pruner.h"

#include <fmt/format.h>

#include <optional>

namespace compress {

struct PruneChannelsOptions : ChannelOptions {
  int64_t rounds = 1;
  Compensation compensate = Compensation::kNone;
  double ridge = 1e-3;
  std::string data = "calibration";

  template <class Visitor>
  void visit(Visitor& field) {
    ChannelOptions::visit(field);
    field("rounds", rounds, "Remove in so many rounds, with new scores before each.")
        .range(1, 1000);
    field("compensate", compensate,
          "After each round, change the layers behind so that they give what they gave before: all "
          "weights refitted "
          "by ridge regression, or those of each removed channel merged into another; both need "
          "calibration data.");
    field("ridge", ridge,
          "How far `refit` holds on to the old weights, relative to the mean variance of the "
          "inputs.")
        .range(0.0, 1e6);
    field("data", data, "Entry of the recipe's data with labels, for the criterion `taylor`.");
  }
};

class PruneChannels final : public PassWith<PruneChannelsOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.channels",
      "Removes channels until a budget is met",
      Needs::kWeights,
      Keeps::kDtypes,
      Locality::kModel,
      "Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023; the criteria are those of "
      "Li et al., ICLR 2017 (l1), Liu et al., ICCV 2017 (batch_norm), He et al., CVPR 2019 (fpgm), "
      "Molchanov et al., CVPR 2019 (taylor), Lee et al., ICLR 2021 (lamp), Hu et al., 2016 (apoz), "
      "Lin et al., CVPR 2020 (hrank) and Kurtic et al., NeurIPS 2023 (obs)"};

  void check(const Model& model, const Options&) const override {
    require_graph(model, "channels");
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    ChannelPruner pruner(model, options);
    pruner.require_reachable();
    std::optional<Model> original;
    if (options.compensate != Compensation::kNone) {
      context.calibration();  // refuses before anything is changed
      original = model.clone(false);
    }
    int64_t removed = 0, compensated = 0;
    for (int64_t round = 1; round <= options.rounds; ++round) {
      if (!context.begin(fmt::format("round {}", round))) break;
      removed += pruner.prune(
          static_cast<double>(round) / static_cast<double>(options.rounds),
          [&](const ChannelGroups& groups) { return scores(model, groups, options, context); });
      if (original && removed > 0) {
        compensated = compensate(model, *original, pruner.kept(), options.compensate, options.ridge,
                                 context.calibration());
      }
      context.progress(round, options.rounds);
    }
    if (removed == 0) return Change::kNone;
    if (original) context.count("layers_compensated", compensated);
    pruner.report(context);
    return Change::kSome;
  }

 private:
  static ChannelScores scores(const Model& model, const ChannelGroups& groups,
                              const Options& options, PassContext& context) {
    switch (options.criterion) {
      case ChannelCriterion::kApoz:
      case ChannelCriterion::kHrank:
        return finish_scores(
            groups, activity_scores(model, groups, options.criterion, context.calibration()),
            options);
      case ChannelCriterion::kObs:
        return finish_scores(groups, obs_scores(model, context.calibration()), options);
      case ChannelCriterion::kTaylor:
        return finish_scores(groups, gradient_scores(model, context, options.data), options);
      default:
        return data_free_scores(model, groups, options, context);
    }
  }
};

COMPRESS_PASS(PruneChannels)

}  // namespace compress
