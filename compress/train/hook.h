// Hooks: what a compression method does inside of a training loop.

#pragma once

#include "compress/model.h"
#include "compress/pass_context.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// Makes of a tensor with the sizes that a parameter had one with the sizes that it has now.
using SizeChange = std::function<at::Tensor(const at::Tensor&)>;

/// Where a run stands. Hooks count time in optimizer steps; options speak of epochs.
struct TrainingClock {
  int64_t step = 0;  ///< optimizer steps that are done
  int64_t steps_per_epoch = 1;
  int64_t total_steps = 1;

  double epoch() const { return static_cast<double>(step) / static_cast<double>(steps_per_epoch); }
  double epochs() const {
    return static_cast<double>(total_steps) / static_cast<double>(steps_per_epoch);
  }
};

/// What hooks work on.
struct Training {
  Model& model;
  PassContext& context;  ///< counts, measures and messages of the step; random generators
  TrainingClock clock;
  /// The optimizer's state tensors of a parameter that have its sizes (momentum), to be edited in
  /// place; null, or an empty list, where the optimizer's state is out of reach.
  std::function<std::vector<at::Tensor>(std::string_view parameter)> moments;
  /// To be called when a parameter's tensor was replaced by one of other sizes: the optimizer drops
  /// the old one and makes its new state tensors from the old, and so do the other hooks. Null
  /// where there are none of them.
  std::function<void(std::string_view parameter, const SizeChange& change)> replaced;
};

/// A method at work in one training run. A step of the loop is
///
///   before_forward, forward, loss + loss_term, backward, after_backward, the optimizer's step,
///   after_step; and after the last one of an epoch after_epoch. before_evaluation comes in front
///   of every evaluation and of finish.
///
/// With several hooks each moment goes through them in the recipe's order, finish in the reverse.
class TrainingHook {
 public:
  using State = std::map<std::string, at::Tensor>;

  virtual ~TrainingHook() = default;

  /// Once, before the first step: makes the model ready. May edit the graph and add tensors.
  virtual void attach(Training&) {}
  /// The same for a run that goes on: the model is as the hook left it, `state` is what `state()`
  /// gave then.
  virtual void restore(Training&, const State& state) {}
  /// What the hook must remember beside the model, for checkpoints.
  virtual State state() const { return {}; }

  /// Sets what the forward pass will see (an effective weight).
  virtual void before_forward(Training&) {}
  /// A term for the loss, a 0-dim tensor with gradients; undefined: none.
  virtual at::Tensor loss_term(Training&) { return {}; }
  /// May edit gradients, before they are clipped.
  virtual void after_backward(Training&) {}
  /// A hook that owns the update makes it here and returns true; then the optimizer makes none.
  virtual bool step(Training&) { return false; }
  /// Masks, projects, makes proximal steps. `clock.step` counts the step that was just made.
  virtual void after_step(Training&) {}
  virtual void after_epoch(Training&) {}
  /// The model is about to be evaluated or finished, and its weights are others than the last
  /// forward pass saw: those after the step, or their moving averages. What depends on them has to
  /// follow.
  virtual void before_evaluation(Training&) {}
  /// Another hook (or this one) has called `Training::replaced`: what is kept here beside the
  /// parameter, in its sizes, has to follow.
  virtual void parameter_replaced(std::string_view parameter, const SizeChange& change) {}

  /// Leaves an ordinary compressed model, without anything that only training needs.
  virtual void finish(Training&) = 0;
};

}  // namespace compress
