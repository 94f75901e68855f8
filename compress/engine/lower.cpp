// Walks a graph and gives each operator its step.

#include "compress/engine/lower.h"

#include "compress/engine/lowering.h"
#include "compress/graph/interpreter.h"
#include "compress/graph/schema.h"

#include <algorithm>
#include <set>

namespace compress::engine {
namespace {

// Values that depend on named tensors only.
std::unordered_set<const Value*> find_constants(const Graph& graph) {
  static const std::set<std::string> kRandom = {"rand",      "randn",   "rand_like", "randn_like",
                                                "bernoulli", "randint", "randperm"};
  std::unordered_set<const Value*> constants(graph.named_tensors().begin(),
                                             graph.named_tensors().end());
  for (const Node& node : graph.nodes()) {
    bool constant = !kRandom.contains(base_name(node.op()));
    for (const Argument& argument : node.arguments()) {
      argument.each_value(
          [&](const Value* value) { constant = constant && constants.contains(value); });
    }
    if (constant) constants.insert(node.outputs().begin(), node.outputs().end());
  }
  return constants;
}

}  // namespace

Lowering::Lowering(const Model& model, const Arithmetic& arithmetic)
    : model_(model), arithmetic_(arithmetic), uses_(model.graph()), weights_(weights(model)) {
  for (const Weight& weight : weights_) {
    for (const WeightUse& use : weight.uses()) weight_of_.emplace(use.layer, &weight);
  }
  constants_ = find_constants(model.graph());
}

Program Lowering::run() {
  const std::vector<Value*>& inputs = model_.graph().inputs();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const size_t slot = new_slot(inputs[i]->name(), sizes_of(inputs[i]),
                                 inputs[i]->type.dtype.value(), /*channels_last=*/false);
    program_.buffers.back().input = i;
    bind(inputs[i], slot);
    program_.inputs.push_back(slot);
  }
  for (const Node& node : model_.graph().nodes()) lower(node);
  for (const Output& output : model_.graph().outputs()) {
    const Value* value = output.value.value();
    if (value == nullptr) continue;
    if (is_constant(value)) {
      program_.results.push_back({std::nullopt, evaluate(model_, value).detach()});
      continue;
    }
    const size_t slot = slot_of(value);
    const bool as_it_is = value->type.dtype == program_.slots[slot].dtype;
    program_.results.push_back(
        {as_it_is ? slot : reordered(slot, program_.slots[slot].channels_last, c10::kFloat, {}),
         {}});
  }
  return std::move(program_);
}

void Lowering::lower(const Node& node) {
  if (done_.contains(&node) || in_chain_.contains(&node)) return;
  if (std::all_of(node.outputs().begin(), node.outputs().end(),
                  [&](const Value* value) { return is_constant(value); })) {
    done_.insert(&node);
    return;
  }
  for (const Argument& argument : node.arguments()) {
    argument.each_value([&](const Value* value) {
      if (value->producer() != nullptr) lower(*value->producer());
    });
  }
  if (done_.contains(&node)) return;  // fused into what it reads
  if (!lower_by_kernel(node)) {
    pending_.push_back(&node);
    pending_values_.insert(node.outputs().begin(), node.outputs().end());
  }
  done_.insert(&node);
}

bool Lowering::lower_by_kernel(const Node& node) {
  if (node.outputs().empty() || node.arguments().empty()) return false;
  const Value* input = node.arguments()[0].value();
  if (node.output()->type.dtype != c10::kFloat) return false;
  if (node.op() != "aten::cat" && node.op() != "aten::addmm" && !is_float_tensor(input)) {
    return false;
  }
  if (!std::all_of(node.outputs().begin() + 1, node.outputs().end(),
                   [&](const Value* value) { return uses_.of(value).empty(); })) {
    return false;
  }
  return lower_convolution(node) || lower_linear(node) || lower_pool(node) ||
         lower_global_average(node) || lower_crop(node) || lower_view(node) ||
         lower_quantizer(node) || lower_activation(node) || lower_binary(node) ||
         lower_layer_norm(node) || lower_batch_norm(node) || lower_softmax(node) ||
         lower_concat(node);
}

Program lower(const Model& model, const Arithmetic& arithmetic) {
  return Lowering(model, arithmetic).run();
}

}  // namespace compress::engine
