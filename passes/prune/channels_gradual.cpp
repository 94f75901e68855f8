// Removes channels step by step while the network trains.
//
// Each round removes some channels of the graph itself, so every step behind it is cheaper; the
// optimizer's state is cut with the parameters. The rounds follow the cubic schedule of Zhu and
// Gupta (2018) in the cost that is left, as Torch-Pruning's iterative pruning does in the channels.

#include "compress/train/training_pass.h"
#include "passes/prune/gradual_schedule.h"
#include "passes/structured/channel_pruner.h"
#include "passes/structured/cut_in_training.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace compress {

struct PruneChannelsGradualOptions : ChannelOptions {
  double begin = 0;
  double end = -1;
  int64_t rounds = 10;
  double power = 3;

  template <class Visitor>
  void visit(Visitor& field) {
    ChannelOptions::visit(field);
    field("begin", begin, "Epoch of the first removal; may be a fraction.").at_least(0);
    field("end", end, "Epoch of the last removal; -1: after half of the epochs.").at_least(-1);
    field("rounds", rounds, "How many removals, evenly spread from `begin` to `end`.")
        .range(1, 10000);
    field("power", power, "Exponent of the schedule.").range(0.0, 16.0);
  }

  void validate(Problems& problems) const {
    ChannelOptions::validate(problems);
    if (end >= 0 && end < begin) problems.add("end", "lies before `begin`");
    if (needs_activations(criterion)) {
      problems.add("criterion", "looks at calibration data, of which a training has none",
                   "take one of the others, taylor for example");
    }
    if (budget.is_latency()) {
      problems.add("budget", "a latency is not measured while training",
                   "set a budget of macs, parameters or bytes");
    }
  }
};

namespace {

class ChannelsHook final : public TrainingHook {
 public:
  explicit ChannelsHook(PruneChannelsGradualOptions options) : options_(std::move(options)) {}

  void attach(Training& training) override { pruner_.emplace(training.model, options_); }

  void restore(Training& training, const State& state) override {
    State scores = state;
    pruner_.emplace(training.model, options_, ChannelPruner::Costs::from(scores));
    round_ = state.at("round").item<int64_t>();
    scores.erase("round");
    scores_.restore(scores);
  }

  State state() const override {
    State state = scores_.state();
    state.merge(pruner_->costs().state());
    state["round"] = at::tensor(round_, at::kLong);
    return state;
  }

  void after_backward(Training& training) override {
    if (options_.criterion == ChannelCriterion::kTaylor) scores_.add(training.model);
  }

  void after_step(Training& training) override {
    // Rounds of one step are one cut: between them there would be no new scores.
    const bool last = training.clock.step >= training.clock.total_steps;
    int64_t due = round_;
    while (due < options_.rounds && (last || training.clock.step >= step_of(due, training.clock))) {
      ++due;
    }
    cut(training, due);
  }

  void finish(Training& training) override {
    // Of a loop that was left early.
    if (round_ < options_.rounds && options_.criterion == ChannelCriterion::kTaylor &&
        scores_.empty()) {
      training.context.message(
          "the last rounds were left out: since the one before there was no gradient to judge by");
    } else {
      cut(training, options_.rounds);
    }
    pruner_->report(training.context);
  }

 private:
  // The first step after which the round may run.
  int64_t step_of(int64_t round, const TrainingClock& clock) const {
    const auto per_epoch = static_cast<double>(clock.steps_per_epoch);
    const double first = std::max(1.0, options_.begin * per_epoch);
    const double last =
        options_.end < 0 ? static_cast<double>(clock.total_steps) / 2 : options_.end * per_epoch;
    const double share = options_.rounds == 1 ? 1
                                              : static_cast<double>(round) /
                                                    static_cast<double>(options_.rounds - 1);
    return std::llround(first + std::max(0.0, last - first) * share);
  }

  // What the rounds up to this one remove.
  void cut(Training& training, int64_t round) {
    if (round == round_) return;
    round_ = round;
    const double progress = gradual_sparsity(
        0, 1, static_cast<double>(round_) / static_cast<double>(options_.rounds), options_.power);
    cut_in_training(training, *pruner_, progress, [&](const ChannelGroups& groups) {
      return options_.criterion == ChannelCriterion::kTaylor
                 ? finish_scores(groups, scores_.scores(training.model), options_)
                 : data_free_scores(training.model, groups, options_, training.context);
    });
    scores_.clear();
  }

  PruneChannelsGradualOptions options_;
  std::optional<ChannelPruner> pruner_;
  TaylorScores scores_;
  int64_t round_ = 0;
};

}  // namespace

class PruneChannelsGradual final : public TrainingPassWith<PruneChannelsGradualOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.channels_gradual",
      "Removes channels step by step while the network trains",
      Needs::kTraining,
      Keeps::kDtypes,
      Locality::kModel,
      "Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023; the schedule is that of "
      "Zhu and Gupta, ICLR Workshop 2018"};

  void check(const Model& model, const Options& options) const override {
    require_reachable_share(model, options);
  }

  std::unique_ptr<TrainingHook> hook(const Options& options) const override {
    return std::make_unique<ChannelsHook>(options);
  }
};

COMPRESS_PASS(PruneChannelsGradual)

}  // namespace compress
