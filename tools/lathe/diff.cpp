// lathe diff: what differs between two models, and how far their outputs are apart.

#include "compress/budget/cost.h"
#include "compress/error.h"
#include "compress/graph/digest.h"
#include "compress/graph/shapes.h"
#include "compress/graph/text.h"
#include "compress/report/table.h"
#include "compress/weight.h"
#include "tools/lathe/command.h"
#include "tools/lathe/terminal.h"

#include <ATen/ops/randn_like.h>
#include <ATen/ops/sub.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

namespace lathe {
namespace {

using compress::Model;
using compress::NamedTensor;

struct Options {
  ModelArgument a, b;
  bool json = false;
};

// A layer's weight in both models, as the layer sees it.
struct LayerDifference {
  std::string name, encoding_a, encoding_b;
  double zeros_a = 0, zeros_b = 0;        // share of the elements
  double largest = 0, relative = 0;       // as in TensorDifference
  std::vector<int64_t> sizes_a, sizes_b;  // where they differ, nothing else is measured
};

struct TensorDifference {
  std::string name, what;
  double largest = 0;   // largest absolute difference
  double relative = 0;  // root of the ratio of squared sums
};

std::string type_text(const at::Tensor& tensor) {
  if (!tensor.defined()) return "known by its digest";
  return fmt::format("{}[{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ","));
}

void measure(const at::Tensor& a, const at::Tensor& b, double& largest, double& relative) {
  if (a.numel() == 0) return;
  const at::Tensor x = a.to(at::kDouble), difference = at::sub(x, b.to(at::kDouble));
  largest = difference.abs().max().item<double>();
  const double size = x.norm().item<double>();
  relative = difference.norm().item<double>() / (size > 0 ? size : 1.0);
}

double share_of_zeros(const compress::Weight& weight) {
  const auto elements = static_cast<double>(weight.elements());
  return 1.0 - static_cast<double>(compress::count_nonzeros(weight)) / elements;
}

// Whether the elements are there, not only digests of them (a model that was read from text).
bool is_known(const Model& model, const compress::Weight& weight) {
  const std::vector<std::string> sources = weight.sources();
  return std::all_of(sources.begin(), sources.end(),
                     [&](const std::string& source) { return model.tensor(source).defined(); });
}

// The weights that both models have and that differ in value or encoding. Adds the tensors that
// the weights of both are made of to `compared`.
std::vector<LayerDifference> compare_layers(const Model& a, const Model& b,
                                            std::set<std::string>& compared) {
  const at::NoGradGuard no_grad;
  const std::vector<compress::Weight> of_b = compress::weights(b);
  std::map<std::string, const compress::Weight*> by_name;
  for (const compress::Weight& weight : of_b) by_name.emplace(weight.name(), &weight);
  std::vector<LayerDifference> differences;
  for (const compress::Weight& weight : compress::weights(a)) {
    const auto found = by_name.find(weight.name());
    if (found == by_name.end()) continue;
    const compress::Weight& other = *found->second;
    if (!is_known(a, weight) || !is_known(b, other)) continue;  // as tensors, by their digests
    for (const compress::Weight* side : {&weight, &other}) {
      for (const std::string& source : side->sources()) compared.insert(source);
    }
    LayerDifference layer;
    layer.name = weight.name();
    layer.encoding_a = weight.encoding();
    layer.encoding_b = other.encoding();
    if (weight.sizes() != other.sizes()) {
      layer.sizes_a = weight.sizes();
      layer.sizes_b = other.sizes();
    } else {
      const at::Tensor x = weight.effective(), y = other.effective();
      if (layer.encoding_a == layer.encoding_b && x.equal(y)) continue;
      measure(x, y, layer.largest, layer.relative);
      layer.zeros_a = share_of_zeros(weight);
      layer.zeros_b = share_of_zeros(other);
    }
    differences.push_back(std::move(layer));
  }
  return differences;
}

// The named tensors apart from those that were compared as weights of layers.
std::vector<TensorDifference> compare_tensors(const Model& a, const Model& b,
                                              const std::set<std::string>& compared) {
  std::vector<TensorDifference> differences;
  for (const NamedTensor& tensor : a.tensors()) {
    if (compared.contains(tensor.name)) continue;
    const NamedTensor* other = b.find_tensor(tensor.name);
    if (other == nullptr) {
      differences.push_back({tensor.name, "only in A: " + type_text(tensor.tensor)});
    } else if (!tensor.tensor.defined() || !other->tensor.defined()) {
      if (compress::tensor_digest(tensor) != compress::tensor_digest(*other)) {
        differences.push_back({tensor.name, "values differ, by their digests"});
      }
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
    if (!compared.contains(tensor.name) && a.find_tensor(tensor.name) == nullptr) {
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

nlohmann::ordered_json to_json(const std::vector<LayerDifference>& layers) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const LayerDifference& layer : layers) {
    nlohmann::ordered_json row = {
        {"name", layer.name}, {"encoding_a", layer.encoding_a}, {"encoding_b", layer.encoding_b}};
    if (layer.sizes_a.empty()) {
      row.update({{"zeros_a", layer.zeros_a},
                  {"zeros_b", layer.zeros_b},
                  {"largest_difference", layer.largest},
                  {"relative_difference", layer.relative}});
    } else {
      row.update({{"sizes_a", layer.sizes_a}, {"sizes_b", layer.sizes_b}});
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string to_text(const std::vector<LayerDifference>& layers) {
  using compress::Table;
  Table table({{"layer's weight", Table::Align::kLeft},
               {"A", Table::Align::kLeft},
               {"B", Table::Align::kLeft},
               {"zeros A"},
               {"zeros B"},
               {"largest"},
               {"relative"}});
  for (const LayerDifference& layer : layers) {
    if (layer.sizes_a.empty()) {
      table.add({layer.name, layer.encoding_a, layer.encoding_b,
                 fmt::format("{:.1f} %", 100 * layer.zeros_a),
                 fmt::format("{:.1f} %", 100 * layer.zeros_b), fmt::format("{:.3g}", layer.largest),
                 fmt::format("{:.3g}", layer.relative)});
    } else {
      table.add({layer.name, fmt::format("{}", fmt::join(layer.sizes_a, "x")),
                 fmt::format("{}", fmt::join(layer.sizes_b, "x")), "", "", "", ""});
    }
  }
  return table.text();
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
  std::set<std::string> compared;
  const std::vector<LayerDifference> layers = compare_layers(a, b, compared);
  const std::vector<TensorDifference> tensors = compare_tensors(a, b, compared);
  const std::vector<std::string> graph = compare_graphs(a, b);
  std::string why_not;
  const std::vector<TensorDifference> outputs = compare_outputs(a, b, why_not);
  if (options.json) {
    nlohmann::ordered_json json = {{"layers", to_json(layers)},
                                   {"tensors", to_json(tensors)},
                                   {"operators", graph},
                                   {"outputs", to_json(outputs)}};
    if (!why_not.empty()) json["outputs_not_compared"] = why_not;
    return print_result(json.dump(2) + "\n");
  }
  std::string text;
  text += layers.empty() ? "the layers' weights are equal\n" : to_text(layers);
  text += tensors.empty() ? "all other tensors are equal\n" : to_text(tensors, "tensor");
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
