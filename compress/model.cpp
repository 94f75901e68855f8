// A model: a graph and the named tensors that it computes with.

#include "compress/model.h"

#include "compress/error.h"
#include "compress/graph/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace compress {
namespace {

// Operators whose behaviour depends on the mode, and the argument that carries it.
struct ModeArgument {
  std::string_view op, argument;
};
constexpr std::array kModeArguments = {
    ModeArgument{"aten::batch_norm", "training"},
    ModeArgument{"aten::instance_norm", "use_input_stats"},
    ModeArgument{"aten::dropout", "train"},
    ModeArgument{"aten::feature_dropout", "train"},
    ModeArgument{"aten::alpha_dropout", "train"},
    ModeArgument{"aten::feature_alpha_dropout", "train"},
    ModeArgument{"aten::native_dropout", "train"},
    ModeArgument{"aten::rrelu", "training"},
    ModeArgument{"aten::lstm.input", "train"},
    ModeArgument{"aten::lstm.data", "train"},
    ModeArgument{"aten::gru.input", "train"},
    ModeArgument{"aten::gru.data", "train"},
    ModeArgument{"aten::rnn_tanh.input", "train"},
    ModeArgument{"aten::rnn_relu.input", "train"},
};

void set_mode(Graph& graph, bool training) {
  for (Node& node : graph.nodes()) {
    for (const ModeArgument& mode : kModeArguments) {
      if (node.op() != mode.op) continue;
      // Without running statistics there is nothing to switch to: such a norm always uses the
      // batch.
      const std::optional<size_t> statistics = node.argument_index("running_mean");
      if (statistics && node.arguments()[*statistics].is_none()) continue;
      graph.set_argument(&node, mode.argument, training);
    }
  }
}

}  // namespace

Model::Model() = default;
Model::~Model() = default;

Model::Model(Model&& other) noexcept
    : metadata(std::move(other.metadata)),
      notes(std::move(other.notes)),
      graph_(std::move(other.graph_)),
      tensors_(std::move(other.tensors_)),
      by_name_(std::move(other.by_name_)) {}  // the interpreter refers to the other model

Model& Model::operator=(Model&& other) noexcept {
  metadata = std::move(other.metadata);
  notes = std::move(other.notes);
  graph_ = std::move(other.graph_);
  tensors_ = std::move(other.tensors_);
  by_name_ = std::move(other.by_name_);
  interpreter_.reset();
  return *this;
}

Model Model::clone(bool deep) const {
  Model copy;
  copy.graph_ = graph_.clone();
  copy.metadata = metadata;
  copy.notes = notes;
  for (const NamedTensor& source : tensors_) {
    NamedTensor& twin = copy.tensors_.emplace_back(source);
    if (deep && twin.tensor.defined()) {
      twin.tensor = twin.tensor.detach().clone().set_requires_grad(source.tensor.requires_grad());
    }
    copy.by_name_[twin.name] = &twin;
    for (const std::string& alias : twin.aliases) copy.by_name_[alias] = &twin;
  }
  return copy;
}

Value* Model::add_tensor(const std::string& name, at::Tensor tensor, TensorRole role) {
  if (by_name_.contains(name)) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("there is already a tensor `{}`", name));
  }
  TensorType type;
  if (tensor.defined()) {
    type.dtype = tensor.scalar_type();
    type.sizes.emplace(tensor.sizes().begin(), tensor.sizes().end());
  }
  Value* value = graph_.add_named_tensor(name, std::move(type));
  NamedTensor& added = tensors_.emplace_back();
  added.name = name;
  added.tensor = std::move(tensor);
  added.role = role;
  by_name_[name] = &added;
  return value;
}

void Model::add_alias(std::string_view name, const std::string& alias) {
  if (by_name_.contains(alias)) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("there is already a tensor `{}`", alias));
  }
  NamedTensor* tied = find_tensor(name);
  COMPRESS_CHECK(tied != nullptr, fmt::format("no tensor `{}` to tie to", name));
  tied->aliases.push_back(alias);
  by_name_[alias] = tied;
}

void Model::remove_tensor(std::string_view name) {
  NamedTensor* tensor = find_tensor(name);
  COMPRESS_CHECK(tensor != nullptr, fmt::format("no tensor `{}` to remove", name));
  if (Value* value = graph_.find(tensor->name)) graph_.erase_named_tensor(value);
  forget(tensor);
}

void Model::forget(NamedTensor* tensor) {
  by_name_.erase(tensor->name);
  for (const std::string& alias : tensor->aliases) by_name_.erase(alias);
  tensors_.remove_if([&](const NamedTensor& candidate) { return &candidate == tensor; });
}

const NamedTensor* Model::find_tensor(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : found->second;
}

NamedTensor* Model::find_tensor(std::string_view name) {
  return const_cast<NamedTensor*>(std::as_const(*this).find_tensor(name));
}

const at::Tensor& Model::tensor(std::string_view name) const {
  const NamedTensor* found = find_tensor(name);
  if (found != nullptr) return found->tensor;
  std::vector<std::string> names;
  for (const NamedTensor& tensor : tensors_) names.push_back(tensor.name);
  throw Error(ErrorCode::kInvalidArgument, fmt::format("there is no tensor `{}`", name), {},
              did_you_mean(name, names));
}

void Model::set_tensor(std::string_view name, at::Tensor tensor) {
  NamedTensor* target = find_tensor(name);
  if (target == nullptr) this->tensor(name);  // throws with the nearest name
  Value* value = graph_.find(target->name);
  value->type.dtype = tensor.scalar_type();
  value->type.sizes.emplace(tensor.sizes().begin(), tensor.sizes().end());
  target->tensor = std::move(tensor);
  target->digest.clear();
}

std::vector<at::Tensor> Model::parameters() const {
  std::vector<at::Tensor> parameters;
  for (const NamedTensor& tensor : tensors_) {
    if (tensor.role == TensorRole::kParameter && tensor.tensor.defined()) {
      parameters.push_back(tensor.tensor);
    }
  }
  return parameters;
}

void Model::remove_dead() {
  for (const std::string& name : graph_.remove_dead()) {
    if (NamedTensor* tensor = find_tensor(name)) forget(tensor);
  }
}

Interpreter& Model::interpreter() const {
  if (!interpreter_ || interpreter_->version() != graph_.version()) {
    interpreter_ = std::make_unique<Interpreter>(*this);
  }
  return *interpreter_;
}

std::vector<at::Tensor> Model::forward(const std::vector<at::Tensor>& inputs) const {
  return interpreter().run(inputs);
}

void Model::train() { set_mode(graph_, true); }
void Model::eval() { set_mode(graph_, false); }

void Model::to(c10::Device device) {
  for (NamedTensor& tensor : tensors_) {
    if (!tensor.tensor.defined() || tensor.tensor.device() == device) continue;
    const bool requires_grad = tensor.tensor.requires_grad();
    tensor.tensor = tensor.tensor.detach().to(device).set_requires_grad(requires_grad);
  }
}

c10::Device Model::device() const {
  for (const NamedTensor& tensor : tensors_) {
    if (tensor.tensor.defined()) return tensor.tensor.device();
  }
  return at::kCPU;
}

}  // namespace compress
