// Sizes of all values as numbers, for one choice of the symbolic ones.

#include "compress/graph/concrete_sizes.h"

#include "compress/graph/interpreter.h"
#include "compress/graph/shapes.h"
#include "compress/graph/size_expression.h"

#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>

namespace compress {
namespace {

using Sizes = std::vector<int64_t>;
using SizeMap = std::unordered_map<const Value*, Sizes>;

// Evaluates symbols and what is computed from them.
class Symbols {
 public:
  Symbols(const Graph& graph, int64_t batch) {
    bool first = true;
    for (const Value* input : graph.inputs()) {
      if (!input->type.sizes) continue;
      for (const Dim& dim : *input->type.sizes) {
        if (dim.is_symbolic()) sizes_.try_emplace(dim.symbol, std::max<int64_t>(dim.size, 2));
      }
      if (!first || input->type.sizes->empty()) continue;
      first = false;
      const Dim& front = input->type.sizes->front();
      if (front.is_symbolic()) sizes_[front.symbol] = batch;
    }
  }

  std::optional<int64_t> size(const Dim& dim) {
    if (!dim.is_symbolic()) return dim.size;
    const auto known = sizes_.find(dim.symbol);
    if (known != sizes_.end()) return known->second;
    const std::optional<SizeExpression> expression = parse_size_expression(dim.symbol);
    if (!expression) return std::nullopt;
    const std::optional<int64_t> size =
        evaluate(*expression, [&](const std::string& name) -> std::optional<int64_t> {
          const auto found = sizes_.find(name);
          return found == sizes_.end() ? std::nullopt : std::optional(found->second);
        });
    if (size) sizes_[dim.symbol] = *size;
    return size;
  }

 private:
  std::map<std::string, int64_t> sizes_;
};

std::optional<SizeMap> from_types(const Graph& graph, int64_t batch) {
  Symbols symbols(graph, batch);
  SizeMap sizes;
  const auto note = [&](const Value* value) {
    if (value->kind() != ValueKind::kTensor) return true;
    if (!value->type.sizes) return false;
    Sizes& found = sizes[value];
    for (const Dim& dim : *value->type.sizes) {
      const std::optional<int64_t> size = symbols.size(dim);
      if (!size || *size < 0) return false;
      found.push_back(*size);
    }
    return true;
  };
  const auto all = [&](const auto& values) {
    return std::all_of(values.begin(), values.end(), note);
  };
  if (!all(graph.inputs()) || !all(graph.named_tensors())) return std::nullopt;
  for (const Node& node : graph.nodes()) {
    if (!all(node.outputs())) return std::nullopt;
  }
  return sizes;
}

SizeMap from_run(const Model& model, int64_t batch) {
  const at::NoGradGuard no_grad;
  // Batch norm in training mode and updates would change the model's buffers.
  Model copy = model.clone(/*deep=*/true);
  copy.graph().set_updates({});
  std::unordered_map<std::string, Sizes> by_name;
  copy.interpreter().run(example_inputs(copy, batch),
                         [&](const Value& value, const c10::IValue& content) {
                           if (content.isTensor() && content.toTensor().defined()) {
                             by_name[value.name()] = content.toTensor().sizes().vec();
                           }
                         });
  SizeMap sizes;
  const auto note = [&](const Value* value) {
    const auto found = by_name.find(value->name());
    if (found != by_name.end()) sizes[value] = found->second;
  };
  for (const Value* input : model.graph().inputs()) note(input);
  for (const Value* value : model.graph().named_tensors()) {
    sizes[value] = model.tensor(value->name()).sizes().vec();
  }
  for (const Node& node : model.graph().nodes()) {
    for (const Value* output : node.outputs()) note(output);
  }
  return sizes;
}

}  // namespace

std::unordered_map<const Value*, Sizes> concrete_sizes(const Model& model, int64_t batch) {
  std::optional<SizeMap> sizes = from_types(model.graph(), batch);
  return sizes ? std::move(*sizes) : from_run(model, batch);
}

}  // namespace compress
