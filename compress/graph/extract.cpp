// Copies the nodes between two cuts of a graph.

#include "compress/graph/extract.h"

#include "compress/error.h"

#include <fmt/format.h>

#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace compress {
namespace {

class Extraction {
 public:
  explicit Extraction(const Model& model) : model_(model) {}

  Model run(const std::vector<const Value*>& inputs, const std::vector<const Value*>& outputs) {
    for (const Value* input : inputs) {
      twins_[input] = part_.graph().add_input(input->name(), input->type, input->kind());
    }
    for (const Value* output : outputs) need(output);
    for (const Node& node : model_.graph().nodes()) {
      if (needed_.contains(&node)) copy(node);
    }
    std::vector<Output> results;
    for (const Value* output : outputs) results.push_back({output->name(), twin_of(output)});
    part_.graph().set_outputs(std::move(results));
    return std::move(part_);
  }

 private:
  // Marks what computes `value`, back to the inputs.
  void need(const Value* value) {
    std::vector<const Value*> open{value};
    while (!open.empty()) {
      const Value* next = open.back();
      open.pop_back();
      if (twins_.contains(next) || next->is_named_tensor()) continue;
      if (next->is_input()) {
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("depends on the model's input `{}`, which is not an input here",
                                next->name()),
                    value->name());
      }
      if (!needed_.insert(next->producer()).second) continue;
      for (const Argument& argument : next->producer()->arguments()) {
        argument.each_value([&](const Value* used) { open.push_back(used); });
      }
    }
  }

  void copy(const Node& node) {
    std::vector<Argument> arguments = node.arguments();
    for (Argument& argument : arguments) {
      argument.map_values([&](const Value* value) { return twin_of(value); });
    }
    std::vector<std::pair<std::string, ValueKind>> names;
    for (const Value* output : node.outputs()) {
      // A node with several outputs may compute one that is an input here, under another name.
      names.emplace_back(output->name(), output->kind());
    }
    Node* twin = part_.graph().insert_raw(nullptr, node.op(), std::move(arguments), names);
    twin->module_path = node.module_path;
    for (size_t i = 0; i < node.outputs().size(); ++i) {
      twin->outputs()[i]->type = node.outputs()[i]->type;
      twins_.try_emplace(node.outputs()[i], twin->outputs()[i]);
    }
  }

  Value* twin_of(const Value* value) {
    const auto found = twins_.find(value);
    if (found != twins_.end()) return found->second;
    const NamedTensor* tensor = model_.find_tensor(value->name());
    COMPRESS_CHECK(value->is_named_tensor() && tensor != nullptr,
                   fmt::format("`{}` is used before it is computed", value->name()));
    Value* twin = part_.add_tensor(tensor->name, tensor->tensor, tensor->role);
    twin->type = value->type;
    return twins_[value] = twin;
  }

  const Model& model_;
  Model part_;
  std::unordered_map<const Value*, Value*> twins_;
  std::unordered_set<const Node*> needed_;
};

}  // namespace

Model extract(const Model& model, const std::vector<const Value*>& inputs,
              const std::vector<const Value*>& outputs) {
  return Extraction(model).run(inputs, outputs);
}

}  // namespace compress
