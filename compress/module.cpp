// A Model as a torch::nn::Module, for code that wants one (torch::optim, checkpoints, data
// parallel).

#include "compress/module.h"

#include "compress/error.h"

#include <fmt/format.h>

#include <memory>

namespace compress {
namespace {

// A name between two dots; torch::nn::Module allows no dots in the names it is given.
class Branch : public torch::nn::Module {};

}  // namespace

ModelModule::ModelModule(Model model) : model_(std::move(model)) {
  for (const NamedTensor& tensor : model_.tensors()) {
    if (tensor.role == TensorRole::kConstant) continue;
    if (!tensor.tensor.defined()) {
      throw Error(ErrorCode::kInvalidArgument, "the tensor has a digest, but no values",
                  tensor.name, "load the weights first");
    }
    register_tensor(tensor.name, tensor);
    for (const std::string& alias : tensor.aliases) register_tensor(alias, tensor);
  }
}

void ModelModule::register_tensor(const std::string& name, const NamedTensor& tensor) {
  torch::nn::Module* owner = this;
  std::shared_ptr<torch::nn::Module> branch;  // keeps `owner` alive on the way down
  size_t start = 0;
  for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', start)) {
    const std::string part = name.substr(start, dot - start);
    std::shared_ptr<torch::nn::Module> child;
    for (const auto& item : owner->named_children()) {
      if (item.key() == part) child = item.value();
    }
    if (child == nullptr) child = owner->register_module(part, std::make_shared<Branch>());
    branch = child;
    owner = branch.get();
    start = dot + 1;
  }
  const std::string leaf = name.substr(start);
  if (tensor.role == TensorRole::kParameter) {
    owner->register_parameter(leaf, tensor.tensor, tensor.tensor.requires_grad());
  } else {
    owner->register_buffer(leaf, tensor.tensor);
  }
}

at::Tensor ModelModule::forward(const at::Tensor& input) {
  const std::vector<at::Tensor> outputs = model_.forward({input});
  if (outputs.size() != 1) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the model has {} outputs, not one", outputs.size()), {},
                "call forward with a vector of inputs");
  }
  return outputs[0];
}

std::vector<at::Tensor> ModelModule::forward(const std::vector<at::Tensor>& inputs) {
  return model_.forward(inputs);
}

void ModelModule::train(bool on) {
  torch::nn::Module::train(on);
  on ? model_.train() : model_.eval();
}

}  // namespace compress
