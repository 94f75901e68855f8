// The C++ frontend writes a linear layer as a transposition and a product; this makes it one again.

#include "compress/record/linear.h"

#include "compress/graph/graph.h"

#include <vector>

namespace compress {
namespace {

bool is_number(const Argument& argument, int64_t expected) {
  if (argument.is_int()) return argument.as<int64_t>() == expected;
  const double* number = std::get_if<double>(&argument.data());
  return number != nullptr && *number == static_cast<double>(expected);
}

bool has_dims(const Value* value, size_t dims) {
  return value != nullptr && value->type.sizes && value->type.sizes->size() == dims;
}

// The matrix whose transpose the argument is; null if it is something else.
Value* transposed_weight(const Argument& argument) {
  const Value* transposed = argument.value();
  if (transposed == nullptr || transposed->producer() == nullptr) return nullptr;
  const Node& node = *transposed->producer();
  const bool swaps = node.op() == "aten::t" ||
                     (node.op() == "aten::transpose.int" && is_number(node.argument("dim0"), 0) &&
                      is_number(node.argument("dim1"), 1));
  if (!swaps) return nullptr;
  Value* weight = node.arguments()[0].value();
  return weight->is_named_tensor() && has_dims(weight, 2) ? weight : nullptr;
}

// One bias for each output of the weight, so that it is added along the last dimension.
Value* bias_for(const Argument& argument, const Value* weight) {
  Value* bias = argument.value();
  const bool fits = has_dims(bias, 1) && bias->is_named_tensor() &&
                    bias->type.sizes->at(0) == weight->type.sizes->at(0);
  return fits ? bias : nullptr;
}

void replace(Graph& graph, Node* node, Value* x, Value* weight, Value* bias) {
  Graph::Call call;
  call.op = "aten::linear";
  call.arguments = {x, weight};
  if (bias != nullptr) call.arguments.emplace_back(bias);
  Node* linear = graph.insert(node, std::move(call));
  linear->output()->type = node->output()->type;
  graph.replace_uses(node->output(), linear->output());
}

void restore_product(Graph& graph, const UseMap& uses, Node* node) {
  Value* weight = transposed_weight(node->arguments()[1]);
  Value* x = node->arguments()[0].value();
  if (weight == nullptr || x == nullptr) return;
  const std::vector<Use>& users = uses.of(node->output());
  Node* user = users.size() == 1 ? users[0].node : nullptr;
  if (user != nullptr && user->op() == "aten::add.Tensor" && users[0].index == 0 &&
      is_number(user->argument("alpha"), 1)) {
    if (Value* bias = bias_for(user->argument("other"), weight)) {
      return replace(graph, user, x, weight, bias);
    }
  }
  replace(graph, node, x, weight, nullptr);
}

void restore_addmm(Graph& graph, Node* node) {
  Value* weight = transposed_weight(node->argument("mat2"));
  if (weight == nullptr || !is_number(node->argument("beta"), 1) ||
      !is_number(node->argument("alpha"), 1)) {
    return;
  }
  if (Value* bias = bias_for(node->argument("self"), weight)) {
    replace(graph, node, node->argument("mat1").value(), weight, bias);
  }
}

}  // namespace

void restore_linear(Graph& graph) {
  std::vector<Node*> nodes;
  for (Node& node : graph.nodes()) nodes.push_back(&node);
  const UseMap uses(graph);
  for (Node* node : nodes) {
    if (node->op() == "aten::addmm") restore_addmm(graph, node);
    if (node->op() == "aten::mm" || node->op() == "aten::matmul") {
      restore_product(graph, uses, node);
    }
  }
}

}  // namespace compress
