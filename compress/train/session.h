// Compression inside of a training loop of one's own.
//
//   TrainingSession session(model, "prune.gradual{sparsity=0.9,end=8}", registry,
//                           {.steps_per_epoch = batches, .total_steps = 10 * batches});
//   for (...) {
//     session.before_forward();
//     loss(model.forward(inputs)) + ... ; loss.backward();
//     session.after_backward();
//     optimizer.step();
//     session.after_step();
//   }
//   session.finish();

#pragma once

#include "compress/recipe.h"
#include "compress/train/hook.h"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

struct SessionOptions {
  int64_t steps_per_epoch = 1;
  int64_t total_steps = 1;
  uint64_t seed = 0;
  /// See `Training::moments` and `Training::replaced`; may be null.
  std::function<std::vector<at::Tensor>(std::string_view)> moments;
  std::function<void(std::string_view, const SizeChange&)> replaced;
};

/// Training passes at work on a model. Besides those of the recipe it keeps masks that the model
/// came with: after each step masked elements are zero again, and so is their momentum, whatever
/// optimizer and weight decay do.
class TrainingSession {
 public:
  /// Attaches the passes of a one-line recipe; each must be a training pass. `model` must outlive
  /// the session. Throws Error(kInvalidArgument).
  TrainingSession(Model& model, const std::string& passes, const PassRegistry& registry,
                  const SessionOptions& options);
  /// The same with steps that were read, reporting into the context of the step they are part of.
  /// `saved`: the states of a run that goes on (`state()`); null attaches anew.
  TrainingSession(Model& model, const std::vector<Step>& passes, PassContext& context,
                  const SessionOptions& options,
                  const std::map<std::string, at::Tensor>* saved = nullptr);
  ~TrainingSession();
  TrainingSession(const TrainingSession&) = delete;
  TrainingSession& operator=(const TrainingSession&) = delete;

  void before_forward();
  /// The sum of the passes' terms, to be added to the loss; undefined when none has one.
  at::Tensor loss_term();
  void after_backward();
  /// True if a pass has made the update itself: then the optimizer must not.
  bool step();
  /// To be called after each step of the optimizer. Counts it, and calls `after_epoch` of the
  /// passes after the last one of an epoch.
  void after_step();
  /// To be called before the model is evaluated between two steps.
  void before_evaluation();
  /// Leaves an ordinary compressed model. To be called once; a session that is destroyed without it
  /// leaves the model as the last step did.
  void finish();

  const TrainingClock& clock() const { return training_.clock; }
  /// Continues at a step (of a run that goes on).
  void set_step(int64_t step) { training_.clock.step = step; }
  /// What the passes must remember beside the model: `<index>/<name>`.
  std::map<std::string, at::Tensor> state() const;
  /// Counts and figures that the passes reported.
  const PassContext& context() const { return training_.context; }

 private:
  TrainingSession(Model& model, std::unique_ptr<PassContext> own, const SessionOptions& options);
  Training training_on(Model& model, PassContext& context, const SessionOptions& options);
  void add_hooks(const std::vector<Step>& passes, const std::map<std::string, at::Tensor>* saved);

  std::unique_ptr<PassContext> own_context_;
  Training training_;
  std::vector<std::unique_ptr<TrainingHook>> hooks_;
};

}  // namespace compress
