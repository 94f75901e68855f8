// Which parameters of a model are trained, and what their groups say about them.

#include "compress/error.h"
#include "compress/model.h"
#include "compress/train/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

// Only these can have gradients; a tensor of which just a digest is known has no elements.
bool is_trainable(const NamedTensor& tensor) {
  return tensor.role == TensorRole::kParameter && tensor.tensor.defined() &&
         tensor.tensor.is_floating_point();
}

// In the model's order. Ties are one tensor with several names; should one tensor stand under two
// names all the same, the first one counts, or it would be updated twice a step.
std::vector<const NamedTensor*> trainable(const Model& model) {
  std::vector<const NamedTensor*> parameters;
  std::unordered_set<const void*> seen;
  for (const NamedTensor& tensor : model.tensors()) {
    if (is_trainable(tensor) && seen.insert(tensor.tensor.unsafeGetTensorImpl()).second) {
      parameters.push_back(&tensor);
    }
  }
  return parameters;
}

// Follows named tensors through everything that depends on nothing else (masks, decodings,
// transpositions) to the nodes that also see an input.
class LayerFinder {
 public:
  explicit LayerFinder(const Graph& graph) {
    for (const Value* value : graph.named_tensors()) behind_[value] = {value};
    for (const Node& node : graph.nodes()) visit(node);
  }

  // The first layer that uses the named tensor; null if there is none.
  const Node* layer(const Value* tensor) const {
    const auto found = layers_.find(tensor);
    return found == layers_.end() ? nullptr : found->second;
  }

 private:
  using Tensors = std::vector<const Value*>;

  void visit(const Node& node) {
    bool constant = true;
    Tensors tensors;
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) {
        const auto found = behind_.find(value);
        constant = constant && found != behind_.end();
        if (found == behind_.end()) return;
        tensors.insert(tensors.end(), found->second.begin(), found->second.end());
      });
    }
    std::sort(tensors.begin(), tensors.end());
    tensors.erase(std::unique(tensors.begin(), tensors.end()), tensors.end());
    if (tensors.empty()) return;
    if (constant) {
      for (const Value* output : node.outputs()) behind_[output] = tensors;
      return;
    }
    for (const Value* tensor : tensors) {
      const Node*& layer = layers_[tensor];
      const bool is_better =
          layer == nullptr || (operator_kind(*layer) == OperatorKind::kEmbedding &&
                               operator_kind(node) != OperatorKind::kEmbedding);
      if (is_better) layer = &node;
    }
  }

  std::unordered_map<const Value*, Tensors> behind_;  // what a constant value is computed from
  std::unordered_map<const Value*, const Node*> layers_;
};

SelectorTarget target_of(const NamedTensor& tensor, const Node* layer) {
  SelectorTarget target;
  target.name = tensor.name;
  target.elements = tensor.tensor.numel();
  target.aliases = tensor.aliases;
  if (layer != nullptr) {
    target.kind = operator_kind(*layer);
    target.module_path = layer->module_path;
  }
  if (target.module_path.empty()) {
    const size_t dot = tensor.name.rfind('.');
    if (dot != std::string::npos) target.module_path = tensor.name.substr(0, dot);
  }
  return target;
}

}  // namespace

void ParameterGroupOptions::validate(Problems& problems) const {
  if (weight_decay < 0 && weight_decay != -1) {
    problems.add("weight_decay", fmt::format("{} is neither -1 nor at least 0", weight_decay));
  }
}

std::vector<SelectorTarget> parameter_targets(const Model& model) {
  const LayerFinder finder(model.graph());
  std::vector<SelectorTarget> targets;
  for (const NamedTensor* tensor : trainable(model)) {
    targets.push_back(target_of(*tensor, finder.layer(model.graph().find(tensor->name))));
  }
  return targets;
}

std::vector<OptimizedParameter> optimized_parameters(
    const Model& model, const std::vector<ParameterGroupOptions>& groups,
    const std::string& where) {
  const std::vector<SelectorTarget> targets = parameter_targets(model);
  for (size_t i = 0; i < groups.size(); ++i) {
    groups[i].where.require_match(targets, fmt::format("{}/{}/where", where, i));
  }
  const std::vector<const NamedTensor*> tensors = trainable(model);
  for (const NamedTensor* tensor : tensors) {
    if (tensor->tensor.is_leaf()) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "it was computed from other tensors, so it has no gradient of its own",
                tensor->name, "put a detached copy into the model");
  }
  std::vector<OptimizedParameter> parameters;
  for (size_t i = 0; i < tensors.size(); ++i) {
    OptimizedParameter parameter{tensors[i]->name, tensors[i]->tensor};
    const auto group =
        std::find_if(groups.begin(), groups.end(),
                     [&](const ParameterGroupOptions& g) { return g.where.matches(targets[i]); });
    const bool frozen = group != groups.end() && group->freeze;
    parameter.tensor.set_requires_grad(!frozen);
    if (frozen) continue;
    if (group != groups.end()) {
      parameter.lr_scale = group->lr_scale;
      parameter.weight_decay = group->weight_decay;
    }
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

}  // namespace compress
