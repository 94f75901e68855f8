// Which layers compute queries and keys.

#include "passes/quantize/attention_scores.h"

#include "compress/weight.h"

#include <set>
#include <string_view>
#include <utility>
#include <vector>

namespace compress {
namespace {

bool is_product(const Node& node) {
  const std::string_view op = node.op();
  if (op != "aten::matmul" && op != "aten::bmm" && op != "aten::baddbmm" && op != "aten::einsum") {
    return false;
  }
  for (const Argument& argument : node.arguments()) {
    const Value* value = argument.value();
    if (value && value->is_named_tensor()) return false;
  }
  return true;
}

class Search {
 public:
  explicit Search(const Model& model) : uses_(model.graph()) {
    for (const Weight& weight : weights(model)) {
      for (const WeightUse& use : weight.uses()) {
        if (use.layer) layers_.insert(use.layer);
      }
    }
  }

  std::unordered_set<const Node*> find() const {
    std::unordered_set<const Node*> found;
    for (const Node* layer : layers_) {
      if (reaches_scores(*layer)) found.insert(layer);
    }
    return found;
  }

 private:
  bool reaches_scores(const Node& layer) const {
    std::set<std::pair<const Value*, bool>> seen;  // and whether a product was on the way
    std::vector<std::pair<const Value*, bool>> left{{layer.output(), false}};
    while (!left.empty()) {
      const auto [value, multiplied] = left.back();
      left.pop_back();
      if (!seen.insert({value, multiplied}).second) continue;
      for (const Use& use : uses_.of(value)) {
        if (use.node == nullptr || layers_.contains(use.node)) continue;
        const std::string_view op = use.node->op();
        if (op.find("norm") != op.npos) continue;
        const bool softmax = op.find("softmax") != op.npos;
        if (softmax && multiplied) return true;
        if (softmax) continue;
        if (op.find("scaled_dot_product") != op.npos) {
          if (use.index < 2) return true;
          continue;  // values: what follows are outputs of the attention
        }
        const bool product = is_product(*use.node);
        for (const Value* output : use.node->outputs()) {
          left.emplace_back(output, multiplied || product);
        }
      }
    }
    return false;
  }

  UseMap uses_;
  std::unordered_set<const Node*> layers_;
};

}  // namespace

std::unordered_set<const Node*> layers_of_attention_scores(const Model& model) {
  return Search(model).find();
}

}  // namespace compress
