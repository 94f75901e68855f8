// Raises sparsity step by step while the network trains.
//
// Zhu & Gupta's cubic schedule (AGP): fast at first, while there is much to remove without harm.
// A weight that was zeroed stays zero: its score is zero, and ties keep the order of the elements.

#include "compress/train/keep_masks.h"
#include "compress/train/training_pass.h"
#include "compress/weight.h"
#include "passes/prune/gradual_schedule.h"
#include "passes/prune/keep_largest.h"
#include "passes/prune/keep_n_of_m.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace compress {

/// What decides which weights stay.
enum class PruneCriterion {
  kMagnitude,  ///< |w|
  kTaylor,     ///< |sum of w * dL/dw| over the steps since the last update of the masks
};
inline std::vector<std::string_view> option_names(PruneCriterion) {
  return {"magnitude", "taylor"};
}

struct PruneGradualOptions {
  double sparsity = 0.8;
  double initial = 0;
  double begin = 0;
  double end = -1;
  int64_t frequency = 100;
  double power = 3;
  PruneCriterion criterion = PruneCriterion::kMagnitude;
  Scope scope = Scope::kTensor;
  int64_t n = 0;
  int64_t m = 0;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("sparsity", sparsity, "Share of the selected weights that are zero in the end.")
        .range(0.0, 1.0);
    field("initial", initial, "Share at the beginning.").range(0.0, 1.0);
    field("begin", begin, "Epoch of the first update; may be a fraction.").at_least(0);
    field("end", end, "Epoch of the last update; -1: after three quarters of the epochs.")
        .at_least(-1);
    field("frequency", frequency, "Optimizer steps from an update of the masks to the next.")
        .at_least(1);
    field("power", power, "Exponent of the schedule.").range(0.0, 16.0);
    field("criterion", criterion, "What decides which weights stay.");
    field("scope", scope, "What shares one threshold.");
    field("n", n, "Of N:M sparsity: how many of every `m` stay; 0: single weights.").at_least(0);
    field("m", m, "Neighbours along the input channels; the sparsity is then 1 - n / m.")
        .range(0, 1024);
    field("where", where, "The weights to prune.");
  }

  void validate(Problems& problems) const {
    if ((n == 0) != (m == 0)) problems.add(n == 0 ? "n" : "m", "N:M sparsity needs both n and m");
    if (n > m) problems.add("n", fmt::format("{} of {} cannot stay", n, m));
    if (end >= 0 && end < begin) problems.add("end", "lies before `begin`");
    if (initial > sparsity) problems.add("initial", "is more than the final `sparsity`");
    if (m > 0 && scope != Scope::kTensor) {
      problems.add("scope", "N:M sparsity is the same everywhere", "leave `scope` out");
    }
  }
};

namespace {

class GradualHook final : public TrainingHook {
 public:
  explicit GradualHook(PruneGradualOptions options) : options_(std::move(options)) {}

  void attach(Training& training) override { find(training); }

  void restore(Training& training, const State& state) override {
    find(training);
    for (Target& target : targets_) {
      target.mask = state.at(target.name + "/mask").to(at::kBool);
      if (const auto score = state.find(target.name + "/score"); score != state.end()) {
        target.score = score->second;
      }
    }
  }

  State state() const override {
    State state;
    for (const Target& target : targets_) {
      state[target.name + "/mask"] = target.mask;
      if (target.score.defined()) state[target.name + "/score"] = target.score;
    }
    return state;
  }

  void parameter_replaced(std::string_view parameter, const SizeChange& change) override {
    for (Target& target : targets_) {
      if (target.name != parameter) continue;
      target.mask = change(target.mask);
      if (target.score.defined()) target.score = change(target.score);
    }
  }

  void after_backward(Training& training) override {
    const at::NoGradGuard no_grad;
    for (Target& target : targets_) {
      const at::Tensor& parameter = training.model.tensor(target.name);
      at::Tensor gradient = parameter.grad();
      if (!gradient.defined()) continue;
      if (scores_gradients()) {
        if (!target.score.defined()) target.score = at::zeros_like(parameter);
        target.score.add_(parameter.mul(gradient));
      }
      gradient.mul_(target.mask);  // so that clipping sees what will be used
    }
  }

  void after_step(Training& training) override {
    hold(training);  // first: an optimizer of any kind has moved masked weights, too
    if (!is_due(training.clock)) return;
    update(training, progress(training.clock));
    hold(training);
  }

  // Averages of weights have no zeros of their own.
  void before_evaluation(Training& training) override { hold(training); }

  void finish(Training& training) override {
    int64_t zeroed = 0, zeros = 0, elements = 0;
    std::vector<Weight> all = weights(training.model, options_.where);
    for (const Target& target : targets_) {
      const int64_t masked = target.mask.numel() - target.mask.sum().item<int64_t>();
      const auto weight = std::find_if(all.begin(), all.end(), [&](const Weight& one) {
        return one.stored() && one.stored()->name == target.name;
      });
      // A quantizer may have packed it, zeros and all: its `finish` comes first.
      zeroed += weight != all.end() ? weight->set_mask(target.mask.contiguous()) : masked;
      zeros += masked;
      elements += target.mask.numel();
    }
    training.context.count("weights_zeroed", zeroed);
    if (elements > 0) {
      training.context.measure("sparsity",
                               static_cast<double>(zeros) / static_cast<double>(elements));
    }
  }

 private:
  struct Target {
    std::string name;
    at::Tensor mask;   // bool: what stays
    at::Tensor score;  // sums of w * gradient, for the Taylor criterion
    int64_t input_dim = 1;
    size_t set = 0;  // which threshold it shares
  };

  void hold(Training& training) const {
    for (const Target& target : targets_) hold_at_zero(training, target.name, target.mask);
  }

  bool scores_gradients() const { return options_.criterion == PruneCriterion::kTaylor; }

  void find(const Training& training) {
    if (first_step(training.clock) > training.clock.total_steps) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("begins at epoch {}, and the training ends at epoch {}",
                              options_.begin, training.clock.epochs()),
                  "begin", "let it begin earlier, or train for more epochs");
    }
    std::vector<Weight> all = weights(training.model, options_.where);
    const std::vector<WeightSet> sets = weight_sets(all, options_.scope);
    for (size_t set = 0; set < sets.size(); ++set) {
      for (const Weight* weight : sets[set].weights) {
        if (!weight->stored()) {
          throw Error(ErrorCode::kInvalidArgument,
                      fmt::format("is {} and has no elements to train", weight->encoding()),
                      weight->name(), "prune before the weights are encoded");
        }
        const at::Tensor mask = weight->mask().defined()
                                    ? weight->mask().clone()
                                    : at::ones_like(weight->stored()->tensor, at::kBool);
        targets_.push_back({weight->stored()->name, mask, {}, weight->input_dim(), set});
      }
    }
    sets_ = sets.size();
  }

  int64_t first_step(const TrainingClock& clock) const {
    return std::llround(options_.begin * static_cast<double>(clock.steps_per_epoch));
  }
  int64_t last_step(const TrainingClock& clock) const {
    if (options_.end < 0) return std::max(first_step(clock), clock.total_steps * 3 / 4);
    const auto step = std::llround(options_.end * static_cast<double>(clock.steps_per_epoch));
    return std::clamp(int64_t{step}, first_step(clock), clock.total_steps);
  }

  // At begin, every `frequency` steps, and at end, so that the final sparsity is reached exactly.
  bool is_due(const TrainingClock& clock) const {
    const int64_t first = first_step(clock), last = last_step(clock);
    if (clock.step < std::max<int64_t>(first, 1) || clock.step > last) return false;
    return (clock.step - first) % options_.frequency == 0 || clock.step == last;
  }
  double progress(const TrainingClock& clock) const {
    const int64_t first = first_step(clock), last = last_step(clock);
    if (last == first) return 1;
    return static_cast<double>(clock.step - first) / static_cast<double>(last - first);
  }

  // What is compared: stored weights (masked ones are zero), or their Taylor scores.
  at::Tensor score(const Training& training, const Target& target) const {
    const at::Tensor weight = training.model.tensor(target.name).detach();
    if (!scores_gradients() || !target.score.defined()) return weight;
    return target.score.abs().mul_(target.mask);
  }

  void update(Training& training, double progress) {
    const at::NoGradGuard no_grad;
    const double goal = options_.m > 0
                            ? 1 - static_cast<double>(options_.n) / static_cast<double>(options_.m)
                            : options_.sparsity;
    const double sparsity =
        gradual_sparsity(std::min(options_.initial, goal), goal, progress, options_.power);
    if (options_.m > 0) {
      prune_patterns(training, sparsity);
    } else {
      prune_singly(training, sparsity);
    }
    for (Target& target : targets_) {
      if (target.score.defined()) target.score.zero_();
    }
  }

  void prune_singly(Training& training, double sparsity) {
    for (size_t set = 0; set < sets_; ++set) {
      std::vector<at::Tensor> scores;
      std::vector<std::string> names;
      std::vector<Target*> members;
      int64_t elements = 0;
      for (Target& target : targets_) {
        if (target.set != set) continue;
        scores.push_back(score(training, target).contiguous());
        names.push_back(target.name);
        members.push_back(&target);
        elements += target.mask.numel();
      }
      const auto masks = keep_largest(scores, kept_count(elements, sparsity), names);
      for (size_t i = 0; i < members.size(); ++i) members[i]->mask.logical_and_(masks[i]);
    }
  }

  // The pattern tightens from M:M to N:M (Kao et al., "Training Recipe for N:M Structured Sparsity
  // with Decaying Pruning Mask", 2022): at each moment the loosest that has the scheduled sparsity.
  void prune_patterns(Training& training, double sparsity) {
    const auto m = static_cast<double>(options_.m);
    const auto kept = static_cast<int64_t>(std::ceil(m * (1 - sparsity) - 1e-9));
    const int64_t n = std::clamp(kept, options_.n, options_.m);
    for (Target& target : targets_) {
      const at::Tensor scores = score(training, target).contiguous();
      target.mask.logical_and_(keep_n_of_m(scores, n, options_.m, target.input_dim));
    }
  }

  PruneGradualOptions options_;
  std::vector<Target> targets_;
  size_t sets_ = 0;
};

}  // namespace

class PruneGradual final : public TrainingPassWith<PruneGradualOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.gradual",
      "Raises sparsity step by step while the network trains",
      Needs::kTraining,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for model "
      "compression, ICLR Workshop 2018"};

  std::unique_ptr<TrainingHook> hook(const Options& options) const override {
    return std::make_unique<GradualHook>(options);
  }
};

COMPRESS_PASS(PruneGradual)

}  // namespace compress
