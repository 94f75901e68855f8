// A model made ready for training, and back.

#include "compress/train/owned_model.h"

#include "compress/error.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>

namespace compress {

void make_trainable(Model& model, c10::Device device, bool channels_last) {
  for (const NamedTensor& named : model.tensors()) {
    const bool trained = named.role == TensorRole::kParameter && named.tensor.is_floating_point();
    const bool in_layout = channels_last && named.tensor.dim() == 4 && trained;
    const c10::MemoryFormat format =
        in_layout ? c10::MemoryFormat::ChannelsLast : c10::MemoryFormat::Contiguous;
    at::Tensor own = named.tensor.detach().to(device).clone(format);
    own.set_requires_grad(trained);
    model.set_tensor(named.name, own);
  }
  model.train();
}

void make_ordinary(Model& model, c10::Device device) {
  for (const NamedTensor& named : model.tensors()) {
    model.set_tensor(named.name, named.tensor.detach().to(device).contiguous());
  }
  model.eval();
}

MovingAverage::MovingAverage(const Model& model, double decay) : decay_(decay) {
  if (decay_ == 0) return;
  for (const NamedTensor& named : model.tensors()) {
    if (named.tensor.requires_grad()) averages_[named.name] = named.tensor.detach().clone();
  }
}

void MovingAverage::update(const Model& model) {
  const at::NoGradGuard no_grad;
  for (auto& [name, average] : averages_) {
    average.lerp_(model.tensor(name), 1 - decay_);
  }
}

void MovingAverage::swap(Model& model) {
  const at::NoGradGuard no_grad;
  for (auto& [name, average] : averages_) {
    const at::Tensor& parameter = model.tensor(name);
    const at::Tensor kept = parameter.clone();
    parameter.copy_(average);
    average.copy_(kept);
  }
}

void MovingAverage::replace(const std::string& name, const at::Tensor& average) {
  if (const auto found = averages_.find(name); found != averages_.end()) found->second = average;
}

void MovingAverage::load(const std::map<std::string, at::Tensor>& averages) {
  for (auto& [name, average] : averages_) {
    const auto saved = averages.find(name);
    if (saved == averages.end() || !saved->second.sizes().equals(average.sizes())) {
      throw Error(ErrorCode::kBadFile, "the checkpoint lacks its moving average", name,
                  "start anew without --resume");
    }
    average.copy_(saved->second);
  }
}

}  // namespace compress
