// Multiply-accumulates of one node.

#include "compress/budget/macs.h"

#include <array>
#include <functional>
#include <map>
#include <numeric>
#include <string>

namespace compress {
namespace {

using Sizes = std::vector<int64_t>;

double product(const Sizes& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), 1.0,
                         [](double a, int64_t b) { return a * static_cast<double>(b); });
}

// The sizes of an argument by name.
std::optional<Sizes> argument_sizes(const Node& node, std::string_view name,
                                    const SizesOf& sizes_of) {
  const std::optional<size_t> index = node.argument_index(name);
  if (!index) return std::nullopt;
  const Value* value = node.arguments()[*index].value();
  return value == nullptr ? std::nullopt : sizes_of(value);
}

// Every output element sums over the inputs of its group and the kernel: weight [out, in / g, ...].
std::optional<double> convolution(const Node& node, const SizesOf& sizes_of) {
  const auto output = sizes_of(node.output());
  const auto weight = argument_sizes(node, "weight", sizes_of);
  if (!output || !weight || weight->empty()) return std::nullopt;
  return product(*output) * product(*weight) /
         static_cast<double>(std::max<int64_t>(1, weight->front()));
}

// Every input element meets the outputs of its group and the kernel: weight [in, out / g, ...].
std::optional<double> transposed_convolution(const Node& node, const SizesOf& sizes_of) {
  const auto input = argument_sizes(node, "input", sizes_of);
  const auto weight = argument_sizes(node, "weight", sizes_of);
  if (!input || !weight || weight->empty()) return std::nullopt;
  return product(*input) * product(*weight) /
         static_cast<double>(std::max<int64_t>(1, weight->front()));
}

// Output elements times the length of the sum, which is the last size of one operand.
std::optional<double> contraction(const Node& node, std::string_view operand,
                                  const SizesOf& sizes_of) {
  const auto output = sizes_of(node.output());
  const auto summed = argument_sizes(node, operand, sizes_of);
  if (!output || !summed || summed->empty()) return std::nullopt;
  return product(*output) * static_cast<double>(summed->back());
}

// Q K^T and the product with V: L x S x (E + Ev) for every head.
std::optional<double> attention(const Node& node, const SizesOf& sizes_of) {
  const auto query = argument_sizes(node, "query", sizes_of);
  const auto key = argument_sizes(node, "key", sizes_of);
  const auto value = argument_sizes(node, "value", sizes_of);
  if (!query || !key || !value || query->size() < 2 || key->size() < 2) return std::nullopt;
  const auto positions = static_cast<double>((*key)[key->size() - 2]);
  return product(*query) * positions *
         (1.0 + static_cast<double>(value->back()) / static_cast<double>(query->back()));
}

// Each weight matrix meets each element of the sequence once.
std::optional<double> recurrent(const Node& node, const SizesOf& sizes_of) {
  const auto input = argument_sizes(node, "input", sizes_of);
  if (!input || input->size() != 3) return std::nullopt;
  double matrices = 0;
  for (const Argument& parameter : node.argument("params").list()) {
    const auto sizes = parameter.value() == nullptr ? std::nullopt : sizes_of(parameter.value());
    if (!sizes) return std::nullopt;
    if (sizes->size() == 2) matrices += product(*sizes);
  }
  return matrices * static_cast<double>((*input)[0] * (*input)[1]);
}

std::optional<double> any_convolution(const Node& node, const SizesOf& sizes_of) {
  return node.argument("transposed") == Argument(true) ? transposed_convolution(node, sizes_of)
                                                       : convolution(node, sizes_of);
}

using Rule = std::function<std::optional<double>(const Node&, const SizesOf&)>;

const std::map<std::string, Rule, std::less<>>& rules() {
  const auto over = [](const char* operand) -> Rule {
    return [operand](const Node& node, const SizesOf& sizes_of) {
      return contraction(node, operand, sizes_of);
    };
  };
  static const std::map<std::string, Rule, std::less<>> rules = {
      {"aten::convolution", any_convolution},
      {"aten::conv1d", convolution},
      {"aten::conv2d", convolution},
      {"aten::conv3d", convolution},
      {"aten::conv1d.padding", convolution},
      {"aten::conv2d.padding", convolution},
      {"aten::conv3d.padding", convolution},
      {"aten::conv_transpose1d", transposed_convolution},
      {"aten::conv_transpose2d.input", transposed_convolution},
      {"aten::conv_transpose3d.input", transposed_convolution},
      {"aten::linear", over("input")},
      {"aten::addmm", over("mat1")},
      {"aten::mm", over("self")},
      {"aten::bmm", over("self")},
      {"aten::baddbmm", over("batch1")},
      {"aten::matmul", over("self")},
      {"aten::scaled_dot_product_attention", attention},
      {"aten::lstm.input", recurrent},
      {"aten::gru.input", recurrent},
      {"aten::rnn_tanh.input", recurrent},
      {"aten::rnn_relu.input", recurrent},
  };
  return rules;
}

}  // namespace

bool has_macs(const Node& node) { return rules().contains(node.op()); }

std::optional<double> node_macs(const Node& node, const SizesOf& sizes_of) {
  const auto rule = rules().find(node.op());
  return rule == rules().end() ? std::nullopt : rule->second(node, sizes_of);
}

}  // namespace compress
