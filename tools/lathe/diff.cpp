// lathe diff: what differs between two models, and how far their outputs are apart.

#include "compress/error.h"
#include "compress/graph/shapes.h"
#include "compress/graph/text.h"
#include "compress/report/table.h"
#include "tools/lathe/command.h"
#include "tools/lathe/terminal.h"

#include <ATen/ops/randn_like.h>
#include <ATen/ops/sub.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <map>
#include <memory>

namespace lathe {
namespace {

using compress::Model;
using compress::NamedTensor;

struct Options {
  ModelArgument a, b;
  bool json = false;
};

struct TensorDifference {
  std::string name, what;
  double largest = 0;   // largest absolute difference
  double relative = 0;  // root of the ratio of squared sums
};

std::string type_text(const at::Tensor& tensor) {
  return fmt::format("{}[{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ","));
}

void measure(const at::Tensor& a, const at::Tensor& b, double& largest, double& relative) {
  if (a.numel() == 0) return;
  const at::Tensor x = a.to(at::kDouble), difference = at::sub(x, b.to(at::kDouble));
  largest = difference.abs().max().item<double>();
  const double size = x.norm().item<double>();
  relative = difference.norm().item<double>() / (size > 0 ? size : 1.0);
}

std::vector<TensorDifference> compare_tensors(const Model& a, const Model& b) {
  std::vector<TensorDifference> differences;
  for (const NamedTensor& tensor : a.tensors()) {
    const NamedTensor* other = b.find_tensor(tensor.name);
    if (other == nullptr) {
      differences.push_back({tensor.name, "only in A: " + type_text(tensor.tensor)});
    } else if (tensor.tensor.sizes() != other->tensor.sizes() ||
               tensor.tensor.dtype() != other->tensor.dtype()) {
      differences.push_back(
          {tensor.name, type_text(tensor.tensor) + " became " + type_text(other->tensor)});
    } else if (!tensor.tensor.equal(other->tensor)) {
      TensorDifference difference{tensor.name, "values differ"};
      measure(tensor.tensor, other->tensor, difference.largest, difference.relative);
      differences.push_back(difference);
    }
  }
  for (const NamedTensor& tensor : b.tensors()) {
    if (a.find_tensor(tensor.name) == nullptr) {
      differences.push_back({tensor.name, "only in B: " + type_text(tensor.tensor)});
    }
  }
  return differences;
}

std::map<std::string, int64_t> operators(const Model& model) {
  std::map<std::string, int64_t> counts;
  for (const compress::Node& node : model.graph().nodes()) ++counts[node.op()];
  return counts;
}

// Operators that one graph has more of, as "aten::relu +1".
std::vector<std::string> compare_graphs(const Model& a, const Model& b) {
  std::map<std::string, int64_t> change = operators(b);
  for (const auto& [op, count] : operators(a)) change[op] -= count;
  std::vector<std::string> lines;
  for (const auto& [op, count] : change) {
    if (count != 0) lines.push_back(fmt::format("{} {:+}", op, count));
  }
  return lines;
}

// Outputs of both on the same random inputs; says why when that is not possible.
std::vector<TensorDifference> compare_outputs(const Model& a, const Model& b,
                                              std::string& why_not) {
  std::vector<TensorDifference> differences;
  if (a.is_tensor_set() || b.is_tensor_set()) {
    why_not = "a bare set of tensors cannot be run";
    return differences;
  }
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> inputs = compress::example_inputs(a);
  for (at::Tensor& input : inputs) {
    if (input.is_floating_point()) input = at::randn_like(input);
  }
  try {
    const std::vector<at::Tensor> x = a.forward(inputs), y = b.forward(inputs);
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      TensorDifference difference{a.graph().outputs()[i].name, ""};
      if (x[i].sizes() != y[i].sizes()) {
        difference.what = type_text(x[i]) + " became " + type_text(y[i]);
      } else {
        measure(x[i], y[i], difference.largest, difference.relative);
      }
      differences.push_back(difference);
    }
  } catch (const compress::Error& error) {
    why_not = error.what();
  }
  return differences;
}

nlohmann::ordered_json to_json(const std::vector<TensorDifference>& differences) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const TensorDifference& difference : differences) {
    rows.push_back({{"name", difference.name},
                    {"what", difference.what},
                    {"largest_difference", difference.largest},
                    {"relative_difference", difference.relative}});
  }
  return rows;
}

std::string to_text(const std::vector<TensorDifference>& differences, const std::string& title) {
  using compress::Table;
  Table table(
      {{title, Table::Align::kLeft}, {"what", Table::Align::kLeft}, {"largest"}, {"relative"}});
  for (const TensorDifference& difference : differences) {
    const bool measured = difference.what.empty() || difference.what == "values differ";
    table.add({difference.name, difference.what,
               measured ? fmt::format("{:.3g}", difference.largest) : "",
               measured ? fmt::format("{:.3g}", difference.relative) : ""});
  }
  return table.text();
}

void run(const Options& options) {
  const Model a = load(options.a), b = load(options.b);
  const std::vector<TensorDifference> tensors = compare_tensors(a, b);
  const std::vector<std::string> graph = compare_graphs(a, b);
  std::string why_not;
  const std::vector<TensorDifference> outputs = compare_outputs(a, b, why_not);
  if (options.json) {
    nlohmann::ordered_json json = {
        {"tensors", to_json(tensors)}, {"operators", graph}, {"outputs", to_json(outputs)}};
    if (!why_not.empty()) json["outputs_not_compared"] = why_not;
    return print_result(json.dump(2) + "\n");
  }
  std::string text;
  text += tensors.empty() ? "all tensors are equal\n" : to_text(tensors, "tensor");
  text += graph.empty() ? "the same operators\n"
                        : fmt::format("operators, B against A: {}\n", fmt::join(graph, ", "));
  text += why_not.empty() ? to_text(outputs, "output, random inputs")
                          : "outputs not compared: " + why_not + "\n";
  print_result(text);
}

}  // namespace

void add_diff(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("diff", "Show what differs between two models");
  options->a.add_to(*command, "A");
  options->b.add_to(*command, "B");
  command->add_flag("--json", options->json, "print JSON");
  command->footer("Example: lathe diff resnet20.pt2 resnet20-small.pt2");
  command->callback([options] { run(*options); });
}

}  // namespace lathe
