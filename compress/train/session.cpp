// The hooks of several passes, called in order.

#include "compress/train/session.h"

#include "compress/train/keep_masks.h"
#include "compress/train/training_pass.h"

#include <fmt/format.h>

#include <utility>

namespace compress {
namespace {

// What stands in `state` under "<index>/".
TrainingHook::State part_of(const std::map<std::string, at::Tensor>& state, size_t index) {
  const std::string prefix = fmt::format("{}/", index);
  TrainingHook::State part;
  for (const auto& [name, tensor] : state) {
    if (name.starts_with(prefix)) part.emplace(name.substr(prefix.size()), tensor);
  }
  return part;
}

std::unique_ptr<TrainingHook> make_hook(const Step& step, size_t index) {
  const auto* pass = dynamic_cast<const TrainingPass*>(step.pass);
  if (pass == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} does not work during training", step.pass->info().id),
                fmt::format("/{}", index),
                "make it a step of its own, before or after the training");
  }
  return pass->hook_any(*step.options);
}

}  // namespace

TrainingSession::TrainingSession(Model& model, std::unique_ptr<PassContext> own,
                                 const SessionOptions& options)
    : own_context_(std::move(own)), training_(training_on(model, *own_context_, options)) {}

TrainingSession::TrainingSession(Model& model, const std::string& passes,
                                 const PassRegistry& registry, const SessionOptions& options)
    : TrainingSession(model, std::make_unique<PassContext>(options.seed), options) {
  const Recipe recipe = load_recipe(passes, registry);
  add_hooks(recipe.steps, nullptr);
}

TrainingSession::TrainingSession(Model& model, const std::vector<Step>& passes,
                                 PassContext& context, const SessionOptions& options,
                                 const std::map<std::string, at::Tensor>* saved)
    : training_(training_on(model, context, options)) {
  add_hooks(passes, saved);
}

TrainingSession::~TrainingSession() = default;

Training TrainingSession::training_on(Model& model, PassContext& context,
                                      const SessionOptions& options) {
  const auto replaced = [this, tell = options.replaced](std::string_view parameter,
                                                        const SizeChange& change) {
    if (tell) tell(parameter, change);
    for (const auto& hook : hooks_) hook->parameter_replaced(parameter, change);
  };
  return {
      model, context, {0, options.steps_per_epoch, options.total_steps}, options.moments, replaced};
}

void TrainingSession::add_hooks(const std::vector<Step>& passes,
                                const std::map<std::string, at::Tensor>* saved) {
  for (size_t i = 0; i < passes.size(); ++i) hooks_.push_back(make_hook(passes[i], i));
  hooks_.push_back(std::make_unique<KeepMasks>());  // last: whatever the others do, zeros stay
  for (size_t i = 0; i < hooks_.size(); ++i) {
    if (saved == nullptr) {
      hooks_[i]->attach(training_);
    } else {
      hooks_[i]->restore(training_, part_of(*saved, i));
    }
  }
}

void TrainingSession::before_forward() {
  for (const auto& hook : hooks_) hook->before_forward(training_);
}

at::Tensor TrainingSession::loss_term() {
  at::Tensor sum;
  for (const auto& hook : hooks_) {
    const at::Tensor term = hook->loss_term(training_);
    if (term.defined()) sum = sum.defined() ? sum.add(term) : term;
  }
  return sum;
}

void TrainingSession::after_backward() {
  for (const auto& hook : hooks_) hook->after_backward(training_);
}

bool TrainingSession::step() {
  bool made = false;
  for (const auto& hook : hooks_) {
    if (!hook->step(training_)) continue;
    COMPRESS_CHECK(!made, "two passes own the update");
    made = true;
  }
  return made;
}

void TrainingSession::after_step() {
  ++training_.clock.step;
  for (const auto& hook : hooks_) hook->after_step(training_);
  if (training_.clock.step % training_.clock.steps_per_epoch != 0) return;
  for (const auto& hook : hooks_) hook->after_epoch(training_);
}

void TrainingSession::before_evaluation() {
  for (const auto& hook : hooks_) hook->before_evaluation(training_);
}

void TrainingSession::finish() {
  before_evaluation();
  for (auto hook = hooks_.rbegin(); hook != hooks_.rend(); ++hook) (*hook)->finish(training_);
}

std::map<std::string, at::Tensor> TrainingSession::state() const {
  std::map<std::string, at::Tensor> all;
  for (size_t i = 0; i < hooks_.size(); ++i) {
    for (auto& [name, tensor] : hooks_[i]->state())
      all.emplace(fmt::format("{}/{}", i, name), tensor);
  }
  return all;
}

}  // namespace compress
