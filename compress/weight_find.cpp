// Which arguments of which operators are weights.

#include "compress/weight.h"

#include <ATen/core/function_schema.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

// A value that stands where an operator expects a weight.
struct Slot {
  Value* value = nullptr;
  size_t argument = 0;
  int64_t output_dim = 0, input_dim = 1;
};

std::string_view aten_name(const Node& node) {
  std::string_view op = node.op();
  if (!op.starts_with("aten::")) return {};
  op.remove_prefix(6);
  return op.substr(0, op.find('.'));
}

bool is_transposed(const Node& node, std::string_view op) {
  if (op.starts_with("conv_transpose")) return true;
  if (op != "convolution" && op != "_convolution") return false;
  const Argument& transposed = node.argument("transposed");
  const bool* flag = std::get_if<bool>(&transposed.data());
  return flag != nullptr && *flag;
}

std::vector<Slot> slots(const Node& node) {
  std::vector<Slot> found;
  const auto add = [&](size_t argument, int64_t output_dim, int64_t input_dim) {
    if (argument >= node.arguments().size()) return;
    node.arguments()[argument].each_value([&](Value* value) {
      if (value->kind() == ValueKind::kTensor) {
        found.push_back({value, argument, output_dim, input_dim});
      }
    });
  };
  const std::string_view op = aten_name(node);
  switch (operator_kind(node)) {
    case OperatorKind::kConv:
      if (is_transposed(node, op)) {
        add(1, 1, 0);
      } else {
        add(1, 0, 1);
      }
      break;
    case OperatorKind::kEmbedding:
      add(0, 0, 1);
      break;
    case OperatorKind::kRecurrent:
      for (size_t i = 0; i < node.arguments().size(); ++i) {
        const bool is_hidden = node.schema() && node.schema()->arguments()[i].name() == "hx";
        if (i > 0 && !is_hidden) add(i, 0, 1);
      }
      break;
    case OperatorKind::kLinear:
      if (op == "linear") {
        add(1, 0, 1);
      } else if (op == "addmm") {
        add(2, 1, 0);
        add(1, 0, 1);
      } else if (op == "mm" || op == "matmul") {
        add(1, -1, -2);
        add(0, -2, -1);
      } else if (op == "bmm") {
        add(1, 2, 1);
      } else if (op == "baddbmm") {
        add(2, 2, 1);
      }
      break;
    default:
      break;
  }
  return found;
}

// The value in front of a transposition of a matrix; null if `value` is none.
Value* transposed_from(const Value* value) {
  const Node* node = value->producer();
  if (node == nullptr || node->arguments().empty()) return nullptr;
  const std::string& op = node->op();
  const auto is = [&](size_t index, int64_t a, int64_t b) {
    if (node->arguments().size() <= index || !node->arguments()[index].is_int()) return false;
    const int64_t number = node->arguments()[index].as<int64_t>();
    return number == a || number == b;
  };
  const bool swaps =
      op == "aten::t" || op == "aten::numpy_T" ||
      (op == "aten::transpose.int" &&
       ((is(1, 0, -2) && is(2, 1, -1)) || (is(1, 1, -1) && is(2, 0, -2)))) ||
      (op == "aten::permute" && node->arguments()[1] == Argument(std::vector<int64_t>{1, 0}));
  return swaps ? node->arguments()[0].value() : nullptr;
}

}  // namespace

class WeightFinder {
 public:
  explicit WeightFinder(Model& model) : model_(model) {
    for (const Value* value : model.graph().named_tensors()) constant_.insert(value);
    for (const Node& node : model.graph().nodes()) {
      bool constant = true, any = false;
      for (const Argument& argument : node.arguments()) {
        argument.each_value([&](const Value* value) {
          constant = constant && constant_.count(value) > 0;
          any = true;
        });
      }
      if (!constant || !any) continue;
      for (const Value* output : node.outputs()) constant_.insert(output);
    }
  }

  std::vector<Weight> find() {
    for (Node& node : model_.graph().nodes()) {
      for (const Slot& slot : slots(node)) add(slot, &node, {});
    }
    if (model_.is_tensor_set()) {
      const std::vector<Output>& outputs = model_.graph().outputs();
      for (size_t i = 0; i < outputs.size(); ++i) {
        Value* value = outputs[i].value.value();
        if (value) add({value, i, 0, 1}, nullptr, outputs[i].name);
      }
    }
    for (Weight& weight : found_) choose_main_use(weight);
    return std::move(found_);
  }

 private:
  void add(Slot slot, Node* layer, const std::string& name) {
    if (!constant_.count(slot.value)) return;
    bool flipped = false;
    Weight weight;
    // A decoding may end in a transposition that is its own, so it is looked for first.
    while (!seen_.count(slot.value)) {
      weight = look_at(slot.value, name);
      Value* before = weight.is_quantized() ? nullptr : transposed_from(slot.value);
      if (before == nullptr) break;
      slot.value = before;
      flipped = !flipped;
    }
    const auto [position, is_new] = seen_.try_emplace(slot.value, found_.size());
    if (is_new) {
      const bool fits =
          c10::isFloatingType(weight.dtype_) && weight.sizes_.size() >= 2 && weight.elements() > 0;
      if (!fits) {
        seen_.erase(position);
        return;
      }
      found_.push_back(std::move(weight));
    }
    Weight& known = found_[position->second];
    const auto dims = static_cast<int64_t>(known.sizes_.size());
    const auto wrap = [&](int64_t dim) { return dim < 0 ? dim + dims : dim; };
    WeightUse use{layer, slot.argument, wrap(slot.output_dim), wrap(slot.input_dim)};
    if (flipped) std::swap(use.output_dim, use.input_dim);
    known.uses_.push_back(use);
    const bool is_alias = !name.empty() && name != known.name_ &&
                          std::count(known.aliases_.begin(), known.aliases_.end(), name) == 0;
    if (is_alias) known.aliases_.push_back(name);
  }

  Weight look_at(Value* value, const std::string& name) {
    Weight weight;
    weight.model_ = &model_;
    weight.value_ = value;
    weight.name_ = name;
    weight.look_through();
    return weight;
  }

  // The layout of a tied weight is that of the layer, not of the embedding that shares it.
  static void choose_main_use(Weight& weight) {
    for (size_t i = 0; i < weight.uses_.size(); ++i) {
      const Node* layer = weight.uses_[i].layer;
      if (layer && operator_kind(*layer) == OperatorKind::kEmbedding) continue;
      weight.main_use_ = i;
      return;
    }
  }

  Model& model_;
  std::unordered_set<const Value*> constant_;
  std::unordered_map<const Value*, size_t> seen_;
  std::vector<Weight> found_;
};

std::vector<Weight> weights(Model& model) { return WeightFinder(model).find(); }

const std::vector<Weight> weights(const Model& model) {
  return WeightFinder(const_cast<Model&>(model)).find();  // the const result cannot edit
}

std::vector<Weight> weights(Model& model, const Selector& where) {
  std::vector<Weight> all = weights(model);
  std::erase_if(all, [&](const Weight& w) { return !where.matches(selector_target(w)); });
  return all;
}

SelectorTarget selector_target(const Weight& weight) {
  return {weight.name(), weight.module_path(), weight.kind(), weight.elements(), weight.aliases()};
}

std::vector<SelectorTarget> selector_targets(const Model& model) {
  std::vector<SelectorTarget> targets;
  for (const Weight& weight : weights(model)) targets.push_back(selector_target(weight));
  return targets;
}

int64_t WeightSet::elements() const {
  int64_t elements = 0;
  for (const Weight* weight : weights) elements += weight->elements();
  return elements;
}

std::vector<WeightSet> weight_sets(std::vector<Weight>& all, Scope scope) {
  std::vector<WeightSet> sets;
  for (Weight& weight : all) {
    std::string name = scope == Scope::kTensor  ? weight.name()
                       : scope == Scope::kLayer ? weight.module_path()
                                                : std::string();
    const auto same = [&](const WeightSet& set) { return set.name == name; };
    auto set = std::find_if(sets.begin(), sets.end(), same);
    const bool alone = scope == Scope::kTensor || (scope == Scope::kLayer && name.empty());
    if (alone || set == sets.end()) set = sets.insert(sets.end(), {std::move(name), {}});
    set->weights.push_back(&weight);
  }
  return sets;
}

}  // namespace compress
