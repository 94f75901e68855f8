// Whether the operands of a recurrent operator fit together.

#include "compress/graph/recurrent.h"

#include "compress/graph/schema.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace compress {
namespace {

std::string misfit(const std::string& what, const at::Tensor& tensor,
                   const std::vector<int64_t>& expected) {
  if (tensor.defined() && tensor.sizes() == at::IntArrayRef(expected)) return {};
  const at::IntArrayRef sizes = tensor.defined() ? tensor.sizes() : at::IntArrayRef();
  return fmt::format("{} has sizes [{}], expected [{}]", what, fmt::join(sizes, ", "),
                     fmt::join(expected, ", "));
}

}  // namespace

bool is_recurrent(const Node& node) {
  return node.op() == "aten::lstm.input" || node.op() == "aten::gru.input" ||
         node.op() == "aten::rnn_tanh.input" || node.op() == "aten::rnn_relu.input";
}

std::string recurrent_problem(const Node& node, const std::vector<c10::IValue>& operands) {
  const std::string name = base_name(node.op());
  const int64_t gates = name == "lstm" ? 4 : name == "gru" ? 3 : 1;
  const at::Tensor& input = operands[0].toTensor();
  const std::vector<at::Tensor> states = operands[1].isTensorList()
                                             ? operands[1].toTensorVector()
                                             : std::vector<at::Tensor>{operands[1].toTensor()};
  const std::vector<at::Tensor> weights = operands[2].toTensorVector();
  const auto count = static_cast<int64_t>(weights.size());
  const int64_t biases = operands[3].toBool() ? 2 : 0;
  const int64_t directions = operands[7].toBool() ? 2 : 1;
  const int64_t layers = operands[4].toInt();
  if (input.dim() != 3) return fmt::format("the input has {} dimensions, expected 3", input.dim());
  if (states.size() != (name == "lstm" ? 2 : 1)) return "there must be a state for each kind";
  // Of each layer and direction: two weights, perhaps two biases, perhaps a projection.
  const int64_t blocks = layers > 0 && layers <= count ? layers * directions : 0;
  const int64_t each = blocks > 0 ? count / blocks : 0;
  const bool projects = name == "lstm" && each == 3 + biases;
  if (blocks == 0 || count != blocks * each || (each != 2 + biases && !projects)) {
    return fmt::format("{} weights and biases are not those of {} layers", count, layers);
  }
  const bool plain = std::all_of(weights.begin(), weights.begin() + 2,
                                 [](const at::Tensor& w) { return w.defined() && w.dim() == 2; });
  if (!plain) return "the first weights are no matrices";
  const int64_t hidden = weights[0].size(0) / gates;
  const int64_t result = projects ? weights[1].size(1) : hidden;
  std::string problem;
  for (int64_t block = 0; block < blocks && problem.empty(); ++block) {
    const int64_t taken = block < directions ? input.size(2) : directions * result;
    const auto check = [&](int64_t index, const std::vector<int64_t>& expected) {
      if (!problem.empty()) return;
      problem = misfit(fmt::format("parameter {}", block * each + index),
                       weights[block * each + index], expected);
    };
    check(0, {gates * hidden, taken});
    check(1, {gates * hidden, result});
    for (int64_t bias = 0; bias < biases; ++bias) check(2 + bias, {gates * hidden});
    if (projects) check(2 + biases, {result, hidden});
  }
  const int64_t batch = input.size(operands[8].toBool() ? 0 : 1);
  for (size_t i = 0; i < states.size() && problem.empty(); ++i) {
    problem = misfit(i == 0 ? "the state" : "the cell's state", states[i],
                     {blocks, batch, i == 0 ? result : hidden});
  }
  return problem;
}

}  // namespace compress
