// A model made ready for training, and back.

#pragma once

#include "compress/model.h"

#include <c10/core/Device.h>

#include <map>
#include <string>

namespace compress {

/// Gives the model tensors of its own (files are mapped read-only, clones share) on `device`, 4-d
/// parameters in channels_last if wanted, floating-point parameters with gradients, and sets train
/// mode.
void make_trainable(Model& model, c10::Device device, bool channels_last);

/// The inverse: eval mode, no gradients, contiguous tensors on `device`.
void make_ordinary(Model& model, c10::Device device);

/// A moving average of parameters: after each step `average = decay * average + (1 - decay) *
/// parameter` (Polyak & Juditsky, 1992; with a constant decay). Starts at the parameters
/// themselves.
class MovingAverage {
 public:
  /// A decay of 0 averages nothing.
  MovingAverage(const Model& model, double decay);

  void update(const Model& model);
  /// Exchanges the model's parameters and the averages, in place. Twice is as it was.
  void swap(Model& model);
  /// Follows a parameter whose tensor was replaced.
  void replace(const std::string& name, const at::Tensor& average);
  const std::map<std::string, at::Tensor>& averages() const { return averages_; }
  void load(const std::map<std::string, at::Tensor>& averages);

 private:
  double decay_;
  std::map<std::string, at::Tensor> averages_;
};

}  // namespace compress
