// Finding and leaving out residual blocks.

#include "passes/structured/residual_blocks.h"

#include "compress/graph/schema.h"

#include <unordered_set>

namespace compress {
namespace {

bool is_tensor(const Value* value) {
  return value != nullptr && value->kind() == ValueKind::kTensor && !value->is_named_tensor();
}

bool same_sizes(const Value* a, const Value* b) {
  return a->type.sizes && b->type.sizes && *a->type.sizes == *b->type.sizes;
}

// Whether `value` is computed from `from`.
bool depends(const Value* value, const Value* from) {
  std::vector<const Value*> open = {value};
  std::unordered_set<const Value*> seen;
  while (!open.empty()) {
    const Value* next = open.back();
    open.pop_back();
    if (next == from) return true;
    if (next->producer() == nullptr || !seen.insert(next).second) continue;
    for (const Argument& argument : next->producer()->arguments()) {
      argument.each_value([&](const Value* operand) {
        if (operand->kind() == ValueKind::kTensor) open.push_back(operand);
      });
    }
  }
  return false;
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
    for (auto [skip, branch] : {std::pair{a, b}, std::pair{b, a}}) {
      if (!same_sizes(skip, node.output()) || !depends(branch, skip)) continue;
      blocks.push_back({&node, skip, block_name(branch, node)});
      break;
    }
  }
  return blocks;
}

void skip_block(Model& model, const ResidualBlock& block) {
  model.graph().replace_uses(block.sum->output(), block.skip);
  model.remove_dead();
}

}  // namespace compress
