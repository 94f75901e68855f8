// Network slimming: batch norms learn which channels matter, then the others go.
//
// While the network trains, an L1 penalty pulls the scales of batch norms to zero (its subgradient
// is added to theirs); after `epoch` epochs the channels with the least scales are removed, and the
// training goes on without them and without the penalty.

#include "compress/selector.h"
#include "compress/train/training_pass.h"
#include "passes/batch_norm_node.h"
#include "passes/structured/channel_pruner.h"
#include "passes/structured/cut_in_training.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace compress {

struct PruneSlimmingOptions {
  Budget budget = Budget::macs(0.5);
  double strength = 1e-4;
  double epoch = -1;
  double most = 0.9;
  int64_t round_to = 1;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("budget", budget, "What the model may cost in the end.");
    field("strength", strength,
          "Factor of the sum of the scales' absolute values in the loss; the paper has 1e-4 for "
          "VGG and 1e-5 for ResNet-164 and DenseNet-40.")
        .at_least(0);
    field("epoch", epoch, "After how many epochs channels go; -1: after half of them.")
        .at_least(-1);
    field("most", most, "Largest share of a group's channels to remove.").range(0.0, 1.0);
    field("round_to", round_to, "Leave a multiple of so many channels of each group.")
        .range(1, 4096);
    field("where", where, "The layers whose output channels may go.");
  }
};

namespace {

ChannelOptions channel_options(const PruneSlimmingOptions& options) {
  ChannelOptions channels;
  channels.budget = options.budget;
  channels.criterion = ChannelCriterion::kBatchNorm;
  channels.normalization = ScoreNormalization::kNone;  // the scales are compared as they are
  channels.most = options.most;
  channels.round_to = options.round_to;
  channels.where = options.where;
  return channels;
}

std::vector<at::Tensor> scales(const Model& model) {
  std::vector<at::Tensor> all;
  std::set<const Value*> known;  // a norm may be used several times
  for (const Node& node : model.graph().nodes()) {
    if (!is_batch_norm(node)) continue;
    const Value* value = norm_value(node, "weight");
    if (value == nullptr || !value->is_named_tensor() || !known.insert(value).second) continue;
    all.push_back(model.tensor(value->name()));
  }
  return all;
}

void require_scales(const Model& model) {
  if (!scales(model).empty()) return;
  throw Error(ErrorCode::kInvalidArgument, "the model has no batch norm with a scale", {},
              "slim before batch norms are folded, or take prune.channels_gradual");
}

class SlimmingHook final : public TrainingHook {
 public:
  explicit SlimmingHook(const PruneSlimmingOptions& options)
      : options_(options), channels_(channel_options(options)) {}

  void attach(Training& training) override {
    require_scales(training.model);
    pruner_.emplace(training.model, channels_);
  }

  void restore(Training& training, const State& state) override {
    State costs = state;
    pruner_.emplace(training.model, channels_, ChannelPruner::Costs::from(costs));
    done_ = state.at("done").item<int64_t>() != 0;
  }

  State state() const override {
    State state = pruner_->costs().state();
    state["done"] = at::tensor(int64_t{done_}, at::kLong);
    return state;
  }

  void after_backward(Training& training) override {
    if (done_) return;
    const c10::NoGradGuard no_grad;
    for (const at::Tensor& scale : scales(training.model)) {
      const at::Tensor& gradient = scale.grad();
      if (gradient.defined()) gradient.add_(scale.detach().sign(), options_.strength);
    }
  }

  void after_step(Training& training) override {
    const double epoch = options_.epoch < 0 ? training.clock.epochs() / 2 : options_.epoch;
    if (!done_ && training.clock.epoch() >= epoch) cut(training);
  }

  void finish(Training& training) override {
    if (!done_) cut(training);
    pruner_->report(training.context);
  }

 private:
  void cut(Training& training) {
    done_ = true;
    cut_in_training(training, *pruner_, 1, [&](const ChannelGroups& groups) {
      return data_free_scores(training.model, groups, channels_, training.context);
    });
  }

  PruneSlimmingOptions options_;
  ChannelOptions channels_;
  std::optional<ChannelPruner> pruner_;
  bool done_ = false;
};

}  // namespace

class PruneSlimming final : public TrainingPassWith<PruneSlimmingOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.slimming",
      "Pulls the scales of batch norms to zero while the network trains, then removes channels",
      Needs::kTraining,
      Keeps::kDtypes,
      Locality::kModel,
      "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017"};

  void check(const Model& model, const Options& options) const override {
    if (!model.is_tensor_set()) require_scales(model);
    require_reachable_share(model, channel_options(options));
  }

  std::unique_ptr<TrainingHook> hook(const Options& options) const override {
    return std::make_unique<SlimmingHook>(options);
  }
};

COMPRESS_PASS(PruneSlimming)

}  // namespace compress
