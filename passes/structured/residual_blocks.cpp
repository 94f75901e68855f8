// Finding and leaving out residual blocks.

#include "passes/structured/residual_blocks.h"

#include "compress/graph/schema.h"
#include "compress/selector.h"

#include <algorithm>
#include <unordered_set>

namespace compress {
namespace {

bool is_tensor(const Value* value) {
  return value != nullptr && value->kind() == ValueKind::kTensor && !value->is_named_tensor();
}

bool same_sizes(const Value* a, const Value* b) {
  return a->type.sizes && b->type.sizes && *a->type.sizes == *b->type.sizes;
}

using Values = std::unordered_set<const Value*>;

// `value` and all tensors that it is computed from.
Values sources(const Value* value) {
  std::vector<const Value*> open = {value};
  Values seen;
  while (!open.empty()) {
    const Value* next = open.back();
    open.pop_back();
    if (!seen.insert(next).second || next->producer() == nullptr) continue;
    for (const Argument& argument : next->producer()->arguments()) {
      argument.each_value([&](const Value* operand) {
        if (operand->kind() == ValueKind::kTensor) open.push_back(operand);
      });
    }
  }
  return seen;
}

// Layers with weights on the way to `of` that `other` does not need.
size_t own_layers(const Values& of, const Values& other) {
  return std::count_if(of.begin(), of.end(), [&](const Value* value) {
    if (value->producer() == nullptr || other.contains(value)) return false;
    const OperatorKind kind = operator_kind(*value->producer());
    return kind == OperatorKind::kConv || kind == OperatorKind::kLinear;
  });
}

bool share_a_computed_value(const Values& a, const Values& b) {
  return std::any_of(a.begin(), a.end(), [&](const Value* value) {
    return value->producer() != nullptr && b.contains(value);
  });
}

// Whether `skip` leads around `branch`: it is what the branch begins with, or is made of that with
// at most one layer where the branch has more.
bool leads_around(const Values& skip, const Value* skip_end, const Values& branch) {
  if (branch.contains(skip_end)) return true;
  const size_t layers = own_layers(skip, branch);
  return layers <= 1 && own_layers(branch, skip) > layers && share_a_computed_value(skip, branch);
}

bool is_plain_sum(const Node& node) {
  if (base_name(node.op()) != "add" || node.arguments().size() < 2) return false;
  if (!node.has_argument("alpha")) return true;
  const Argument& alpha = node.argument("alpha");
  const auto* whole = std::get_if<int64_t>(&alpha.data());
  const auto* real = std::get_if<double>(&alpha.data());
  return alpha.is_none() || (whole && *whole == 1) || (real && *real == 1);
}

// `layer1.0` of `layer1.0.bn2`: what the module paths of the branch have in common would be better,
// but its last node's parent is what people call the block.
std::string block_name(const Value* branch, const Node& sum) {
  std::string path = branch->producer() ? branch->producer()->module_path : "";
  if (const size_t dot = path.rfind('.'); dot != std::string::npos) path.resize(dot);
  return path.empty() ? sum.output()->name() : path;
}

}  // namespace

std::vector<ResidualBlock> residual_blocks(Model& model) {
  std::vector<ResidualBlock> blocks;
  for (Node& node : model.graph().nodes()) {
    if (!is_plain_sum(node)) continue;
    Value* a = node.arguments()[0].value();
    Value* b = node.arguments()[1].value();
    if (!is_tensor(a) || !is_tensor(b) || a == b) continue;
    const Values of_a = sources(a), of_b = sources(b);
    if (same_sizes(a, node.output()) && leads_around(of_a, a, of_b)) {
      blocks.push_back({&node, a, block_name(b, node)});
    } else if (same_sizes(b, node.output()) && leads_around(of_b, b, of_a)) {
      blocks.push_back({&node, b, block_name(a, node)});
    }
  }
  return blocks;
}

void skip_block(Model& model, const ResidualBlock& block) {
  model.graph().replace_uses(block.sum->output(), block.skip);
  model.remove_dead();
}

}  // namespace compress
