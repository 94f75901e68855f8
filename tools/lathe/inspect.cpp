// lathe inspect: what is in a model.

#include "compress/budget/channel_cost.h"
#include "compress/budget/cost.h"
#include "compress/error.h"
#include "compress/files.h"
#include "compress/graph/channels.h"
#include "compress/graph/shapes.h"
#include "compress/graph/text.h"
#include "compress/report/run_report.h"
#include "tools/lathe/command.h"
#include "tools/lathe/terminal.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>

namespace lathe {
namespace {

using compress::Table;

struct Options {
  ModelArgument model;
  bool graph = false, groups = false, json = false;
};

// 0 for what is no file: `-`, zoo:NAME.
int64_t file_bytes(const std::string& source) {
  std::error_code missing;
  return std::filesystem::exists(source, missing) ? compress::model_file_bytes(source) : 0;
}

std::string layer_table(const compress::ModelCost& cost) {
  Table table({{"layer", Table::Align::kLeft},
               {"operator", Table::Align::kLeft},
               {"weight"},
               {"encoding", Table::Align::kLeft},
               {"elements"},
               {"zeros"},
               {"bits/weight"},
               {"MACs"}});
  for (const compress::LayerCost& layer : cost.layers) {
    const auto elements = static_cast<double>(layer.elements);
    const bool has_weight = layer.elements > 0;
    const double zeros =
        has_weight ? 100.0 * (1.0 - static_cast<double>(layer.nonzeros) / elements) : 0;
    table.add({layer.name, layer.op, fmt::format("{}", fmt::join(layer.sizes, "x")), layer.encoding,
               has_weight ? compress::with_thousands(layer.elements) : "",
               has_weight ? fmt::format("{:.1f} %", zeros) : "",
               has_weight
                   ? fmt::format("{:.2f}", static_cast<double>(layer.bits_on_disk) / elements)
                   : "",
               layer.macs ? compress::count_text(*layer.macs) : ""});
  }
  return table.text();
}

std::string totals(const compress::ModelCost& cost, const compress::Model& model, int64_t bytes) {
  Table table({{"total", Table::Align::kLeft}, {""}});
  table.add({"parameters", compress::with_thousands(cost.parameters)});
  table.add({"non-zeros", compress::with_thousands(cost.nonzeros)});
  table.add(
      {"zeros among the layers' weights", fmt::format("{:.2f} %", 100.0 * cost.weight_sparsity())});
  if (cost.macs) {
    const std::string sizes = compress::free_sizes_text(model);
    table.add({sizes.empty() ? "MACs a sample" : fmt::format("MACs a sample, {}", sizes),
               compress::count_text(*cost.macs)});
  }
  table.add({"bits per weight", fmt::format("{:.3f}", cost.bits_per_weight)});
  table.add({"bytes of tensors", compress::with_thousands(cost.payload_bytes)});
  if (bytes > 0) table.add({"bytes of the file", compress::with_thousands(bytes)});
  table.add(
      {"operators", compress::with_thousands(static_cast<int64_t>(model.graph().nodes().size()))});
  return table.text();
}

// A group of channels with what its first unit saves.
struct Priced {
  const compress::ChannelGroup* group;
  compress::ChannelCost saving;

  // What all units but one would save, roughly: the order of the list.
  double weight() const {
    const auto units = static_cast<double>(group->units.size());
    return units * (saving.macs ? *saving.macs : static_cast<double>(saving.parameters));
  }
};

std::vector<Priced> priced(const compress::Model& model, const compress::ChannelGroups& groups) {
  std::vector<Priced> list;
  for (const compress::ChannelGroup& group : groups.groups()) {
    list.push_back({&group, compress::saving_of(model, groups, group)});
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const Priced& a, const Priced& b) { return a.weight() > b.weight(); });
  return list;
}

compress::Json groups_json(const compress::Model& model, const compress::ChannelGroups& groups) {
  compress::Json json = {{"groups", compress::Json::array()}, {"frozen", compress::Json::array()}};
  for (const Priced& each : priced(model, groups)) {
    compress::Json entry = {{"units", each.group->units.size()},
                            {"parameters_each", each.saving.parameters},
                            {"exact", each.group->exact()},
                            {"why_inexact", each.group->why_inexact},
                            {"cuts", compress::Json::array()}};
    if (each.saving.macs) entry["macs_each"] = *each.saving.macs;
    for (const compress::ChannelDim& dim : each.group->dims) {
      entry["cuts"].push_back(
          {{"tensor", dim.tensor->name()}, {"dim", dim.dim}, {"indices_each", dim.indices_each}});
    }
    json["groups"].push_back(std::move(entry));
  }
  for (const compress::FrozenChannels& frozen : groups.frozen()) {
    json["frozen"].push_back({{"tensor", frozen.tensor->name()},
                              {"dim", frozen.dim},
                              {"indices", frozen.count},
                              {"why", frozen.why}});
  }
  return json;
}

// The tensors that a group cuts; of many the first few.
std::string cuts_text(const compress::ChannelGroup& group) {
  constexpr size_t kMost = 6;
  std::vector<std::string> dims;
  for (const compress::ChannelDim& dim : group.dims) {
    if (dims.size() == kMost && group.dims.size() > kMost + 1) {
      dims.push_back(fmt::format("{} more", group.dims.size() - kMost));
      break;
    }
    dims.push_back(fmt::format("{}[{}]", dim.tensor->name(), dim.dim));
    if (dim.indices_each > 1) dims.back() += fmt::format(" x{}", dim.indices_each);
  }
  return fmt::format("{}", fmt::join(dims, ", "));
}

std::string groups_text(const compress::Model& model, const compress::ChannelGroups& groups) {
  Table table({{"units"},
               {"parameters each"},
               {"MACs each"},
               {"exact", Table::Align::kLeft},
               {"tensor[dimension] x indices that one unit cuts", Table::Align::kLeft}});
  for (const Priced& each : priced(model, groups)) {
    table.add({compress::with_thousands(static_cast<int64_t>(each.group->units.size())),
               compress::with_thousands(each.saving.parameters),
               each.saving.macs ? compress::count_text(*each.saving.macs) : "",
               each.group->exact() ? "yes" : each.group->why_inexact, cuts_text(*each.group)});
  }
  Table frozen({{"stays", Table::Align::kLeft}, {"indices"}, {"why", Table::Align::kLeft}});
  for (const compress::FrozenChannels& each : groups.frozen()) {
    frozen.add({fmt::format("{}[{}]", each.tensor->name(), each.dim),
                compress::with_thousands(each.count), each.why});
  }
  return table.text() + "\n" + frozen.text();
}

void show_groups(const compress::Model& model, bool json) {
  const compress::ChannelGroups groups = compress::analyse(model);
  print_result(json ? groups_json(model, groups).dump(2) + "\n" : groups_text(model, groups));
}

void run(const Options& options) {
  const compress::Model model = load(options.model);
  if (options.groups) return show_groups(model, options.json);
  if (options.graph) return print_result(compress::print(model, {.contents = false}));
  const compress::ModelCost cost = compress::measure_cost(model);
  const int64_t bytes = file_bytes(options.model.source);
  if (options.json) {
    compress::Json json = {{"model", options.model.source}, {"file_bytes", bytes}};
    json["inputs"] = compress::Json::array();
    for (const compress::Value* input : model.graph().inputs()) {
      json["inputs"].push_back({{"name", input->name()}, {"type", compress::print(input->type)}});
    }
    json["cost"] = compress::model_cost_json(cost);
    return print_result(json.dump(2) + "\n");
  }
  std::string text = layer_table(cost) + "\n" + totals(cost, model, bytes);
  for (const compress::Value* input : model.graph().inputs()) {
    text += fmt::format("input {} : {}\n", input->name(), compress::print(input->type));
  }
  print_result(text);
}

}  // namespace

void add_inspect(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("inspect", "Show a model's layers, sizes, MACs, zeros and encodings");
  options->model.add_to(*command);
  options->model.add_sizes_to(*command);
  CLI::Option* graph =
      command->add_flag("--graph", options->graph, "print the graph in its text form instead");
  command
      ->add_flag("--groups", options->groups,
                 "show which channels can only go together, the largest saving first")
      ->excludes(graph);
  command->add_flag("--json", options->json, "print JSON")->excludes(graph);
  command->footer("Example: lathe inspect zoo:resnet20-cifar10");
  command->callback([options] { run(*options); });
}

}  // namespace lathe
