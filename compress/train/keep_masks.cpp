// Masked weights stay zero, whatever the optimizer does.

#include "compress/train/keep_masks.h"

#include "compress/weight.h"

#include <ATen/core/grad_mode.h>

namespace compress {

void hold_at_zero(Training& training, std::string_view parameter, const at::Tensor& keep) {
  const at::NoGradGuard no_grad;
  at::Tensor elements = training.model.tensor(parameter);
  // A product would keep NaN and the sign of zero.
  const at::Tensor drop = keep.logical_not();
  elements.masked_fill_(drop, 0);
  if (!training.moments) return;
  for (const at::Tensor& moment : training.moments(parameter)) moment.masked_fill_(drop, 0);
}

void KeepMasks::find(const Training& training) {
  masked_.clear();
  for (const Weight& weight : weights(std::as_const(training.model))) {
    if (!weight.stored() || !weight.mask().defined()) continue;
    const Node* product = weight.value()->producer();
    for (const Argument& argument : product->arguments()) {
      const Value* mask = argument.value();
      if (mask && mask->name() != weight.stored()->name) {
        masked_.push_back({weight.stored()->name, std::string(mask->name())});
      }
    }
  }
  version_ = training.model.graph().version();
}

void KeepMasks::after_step(Training& training) {
  if (version_ != training.model.graph().version()) find(training);
  for (const Masked& masked : masked_) {
    hold_at_zero(training, masked.parameter, training.model.tensor(masked.mask));
  }
}

}  // namespace compress
