// Taps: named places of a graph whose values are kept while a model runs.

#include "compress/train/taps.h"

#include "compress/error.h"
#include "compress/graph/interpreter.h"
#include "compress/model.h"

#include <ATen/core/ivalue.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <unordered_set>
#include <utility>

namespace compress {
namespace {

constexpr std::string_view kInputSuffix = ":input";

bool inside(std::string_view module, std::string_view path) {
  return path.starts_with(module) && (path.size() == module.size() || path[module.size()] == '.');
}

// Every module path with those around it: a.b.c, a.b, a.
std::set<std::string> modules_of(const Graph& graph) {
  std::set<std::string> modules;
  for (const Node& node : graph.nodes()) {
    for (std::string path = node.module_path; !path.empty();) {
      if (!modules.insert(path).second) break;
      const size_t dot = path.rfind('.');
      path.resize(dot == std::string::npos ? 0 : dot);
    }
  }
  return modules;
}

bool is_read_outside(std::string_view module, const std::vector<Use>& uses) {
  return std::any_of(uses.begin(), uses.end(), [&](const Use& use) {
    return use.node != nullptr ? !inside(module, use.node->module_path) : !use.is_update;
  });
}

// What a module gives to others; null if it computes no tensor.
TapPlace module_output(const Graph& graph, const std::string& module) {
  const UseMap uses(graph);
  const Value* last = nullptr;
  std::vector<const Value*> leaving;
  for (const Node& node : graph.nodes()) {
    if (!inside(module, node.module_path)) continue;
    for (const Value* value : node.outputs()) {
      if (value->kind() != ValueKind::kTensor) continue;
      const bool leaves = is_read_outside(module, uses.of(value));
      // The statistics that an operator returns beside its result are not its result.
      if (value->output_index() > 0 && !leaves) continue;
      last = value;
      if (leaves) leaving.push_back(value);
    }
  }
  if (leaving.empty()) return {last, ""};
  if (leaving.size() == 1) return {leaving.back(), ""};
  std::vector<std::string> names;
  for (const Value* value : leaving) names.push_back(value->name());
  return {leaving.back(),
          fmt::format("{} values leave the module `{}` ({}): the last, `{}`, is tapped",
                      names.size(), module, fmt::join(names, ", "), names.back())};
}

const Value* module_input(const Graph& graph, std::string_view module) {
  for (const Node& node : graph.nodes()) {
    if (!inside(module, node.module_path)) continue;
    const Value* found = nullptr;
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) {
        const Node* producer = value->producer();
        const bool enters =
            value->is_input() || (producer != nullptr && !inside(module, producer->module_path));
        if (found == nullptr && enters && value->kind() == ValueKind::kTensor) found = value;
      });
    }
    if (found != nullptr) return found;
  }
  return nullptr;
}

// A value of the graph, an output's name, or `input`.
const Value* named_value(const Graph& graph, std::string_view text) {
  if (const Value* value = graph.find(text)) return value;
  for (const Output& output : graph.outputs()) {
    if (output.name == text && output.value.is_value()) return output.value.value();
  }
  return text == "input" && !graph.inputs().empty() ? graph.inputs().front() : nullptr;
}

bool depends_on_inputs(const Graph& graph, const Value* wanted) {
  std::unordered_set<const Value*> reached(graph.inputs().begin(), graph.inputs().end());
  for (const Node& node : graph.nodes()) {
    bool reads = false;
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) { reads = reads || reached.contains(value); });
    }
    if (reads) reached.insert(node.outputs().begin(), node.outputs().end());
  }
  return reached.contains(wanted);
}

Error names_nothing(const Graph& graph, std::string_view text,
                    const std::set<std::string>& modules) {
  std::vector<std::string> known(modules.begin(), modules.end());
  for (const Value* input : graph.inputs()) known.push_back(input->name());
  for (const Node& node : graph.nodes()) {
    for (const Value* value : node.outputs()) known.push_back(value->name());
  }
  for (const Output& output : graph.outputs()) known.push_back(output.name);
  const std::string hint = did_you_mean(text, known);
  return Error(ErrorCode::kInvalidArgument,
               fmt::format("the model has no module and no value `{}` to tap", text), {},
               hint.empty() ? "see `lathe inspect --graph` for the names" : hint);
}

}  // namespace

TapPlace find_tap(const Model& model, std::string_view text) {
  const Graph& graph = model.graph();
  const std::set<std::string> modules = modules_of(graph);
  const Value* named = named_value(graph, text);
  TapPlace place;
  if (modules.contains(std::string(text))) {
    place = module_output(graph, std::string(text));
    if (place.value != nullptr && named != nullptr && named != place.value) {
      place.note +=
          fmt::format("{}`{}` is a module and a value: the module's output, `{}`, is tapped",
                      place.note.empty() ? "" : "; ", text, place.value->name());
    }
  } else if (named != nullptr) {
    place.value = named;
  } else if (text.ends_with(kInputSuffix)) {
    const std::string_view module = text.substr(0, text.size() - kInputSuffix.size());
    if (!modules.contains(std::string(module))) throw names_nothing(graph, module, modules);
    place.value = module_input(graph, module);
  } else {
    throw names_nothing(graph, text, modules);
  }
  if (place.value == nullptr || place.value->kind() != ValueKind::kTensor ||
      !depends_on_inputs(graph, place.value)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("`{}` is not a tensor that the model computes from its inputs", text),
                {}, "tap the output of a layer");
  }
  return place;
}

Taps::Taps(const Model& model, std::vector<std::string> texts)
    : model_(&model), texts_(std::move(texts)) {
  resolve();
}

void Taps::resolve() {
  taps_.clear();
  notes_.clear();
  for (size_t i = 0; i < texts_.size(); ++i) {
    const TapPlace place = find_tap(*model_, texts_[i]);
    taps_[place.value].push_back(i);
    if (!place.note.empty()) notes_.push_back(place.note);
  }
  version_ = model_->graph().version();
}

Activations Taps::run(const std::vector<at::Tensor>& inputs) {
  if (version_ != model_->graph().version()) resolve();
  Activations kept;
  if (taps_.empty()) {
    kept.outputs = model_->forward(inputs);
    return kept;
  }
  const Interpreter::Observer observer = [&](const Value& value, const c10::IValue& content) {
    const auto found = taps_.find(&value);
    if (found == taps_.end()) return;
    for (const size_t tap : found->second) kept.taps[texts_[tap]] = content.toTensor();
  };
  kept.outputs = model_->interpreter().run(inputs, observer);
  for (const std::string& text : texts_) {
    COMPRESS_CHECK(kept.taps.contains(text), "the run did not compute the tap `" + text + "`");
  }
  return kept;
}

Activations run_with_taps(const Model& model, const std::vector<at::Tensor>& inputs,
                          const std::vector<std::string>& texts) {
  return Taps(model, texts).run(inputs);
}

}  // namespace compress
