// A Model as a torch::nn::Module, for code that wants one (torch::optim, checkpoints, data
// parallel).
//
// Costs 13 s to compile into a file: nothing of Lathe's own needs it.

#pragma once

#include "compress/model.h"

#include <torch/nn/module.h>

#include <vector>

namespace compress {

/// A model with its parameters and buffers registered under their dotted names. The tensors are
/// shared: an optimizer over `parameters()` trains the model. Constants are not registered.
///
/// The registered tensors are those of the moment of wrapping; to change the graph, take the model
/// out, change it and wrap it anew.
class ModelModule : public torch::nn::Module {
 public:
  explicit ModelModule(Model model);

  /// For models with one input and one output.
  at::Tensor forward(const at::Tensor& input);
  /// Inputs in the graph's order; returns all outputs.
  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& inputs);

  /// Sets the mode of the module and of the graph's nodes.
  void train(bool on = true) override;

  Model& model() { return model_; }
  const Model& model() const { return model_; }
  /// Moves the model out; the module is of no use afterwards.
  Model release() { return std::move(model_); }

 private:
  void register_tensor(const std::string& name, const NamedTensor& tensor);

  Model model_;
};

}  // namespace compress
