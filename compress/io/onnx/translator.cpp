// From a graph of ATen operators to a graph of ONNX operators.

#include "compress/io/onnx/translator.h"

#include "compress/error.h"
#include "compress/graph/interpreter.h"
#include "compress/io/onnx/rules.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

namespace compress::onnx {
namespace {

// A constant larger than this that only repeats numbers is made at run time instead.
constexpr int64_t kFoldedBytes = 1 << 20;
// Constants of at most so many bytes are shared when their contents are equal.
constexpr int64_t kSharedBytes = 4096;

int64_t bytes_of(const Value* value) {
  if (!value->type.sizes || !value->type.dtype) return 0;
  int64_t bytes = static_cast<int64_t>(c10::elementSize(*value->type.dtype));
  for (const Dim& dim : *value->type.sizes) bytes *= dim.size;
  return bytes;
}

// Whether a node makes many numbers of few.
bool repeats(const Node& node) {
  static const std::set<std::string> ops{"aten::arange", "aten::expand",      "aten::expand_as",
                                         "aten::full",   "aten::ones",        "aten::repeat",
                                         "aten::zeros",  "aten::broadcast_to"};
  return ops.contains(node.op());
}

bool is_random(const Node& node) {
  const auto handle = c10::Dispatcher::singleton().findSchema(node.schema()->operator_name());
  return !handle || handle->hasTag(at::Tag::nondeterministic_seeded);
}

std::string problem_of(const Node& node, const std::string& reason) {
  const std::string where = node.module_path.empty() ? "" : " @ " + node.module_path;
  return fmt::format("{}{}{}", node.op(), where, reason.empty() ? "" : ": " + reason);
}

}  // namespace

Translator::Translator(const Model& model, int opset,
                       std::unordered_map<const Value*, EncodedWeight> weights,
                       std::unordered_map<const Value*, std::string> stored_names)
    : model_(model),
      uses_(model.graph()),
      weights_(std::move(weights)),
      stored_names_(std::move(stored_names)) {
  out_.opset = opset;
  out_.name = "network";
}

OnnxModel Translator::translate() {
  declare_inputs();
  // Outputs have their names reserved, so that no node of another name takes them.
  for (const Output& output : model_.graph().outputs()) {
    const Value* value = output.value.value();
    if (value == nullptr || value->is_input() || wished_.contains(value)) continue;
    if (taken_.insert(output.name).second) wished_[value] = output.name;
  }
  const std::unordered_set<const Node*> live = live_nodes();
  std::vector<std::string> problems;
  for (const Node& node : model_.graph().nodes()) {
    if (!live.contains(&node)) continue;
    try {
      translate_node(node);
    } catch (const Refusal& refusal) {
      const std::string problem = problem_of(node, refusal.reason);
      if (std::count(problems.begin(), problems.end(), problem) == 0) problems.push_back(problem);
      for (const Value* output : node.outputs()) {
        names_[output] = output->name();
        scalars_[output] = Size(output->name());
      }
    }
  }
  if (!problems.empty()) {
    std::string list;
    for (const std::string& problem : problems) list += "\n  " + problem;
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{} operator{} cannot be written as ONNX:{}", problems.size(),
                            problems.size() == 1 ? "" : "s", list),
                {}, "write .pt2, which has every operator, or replace these in the network");
  }
  declare_outputs();
  drop_unused();
  return std::move(out_);
}

void Translator::declare_inputs() {
  for (const Value* input : model_.graph().inputs()) {
    const std::string name = fresh(input->name());
    names_[input] = name;
    if (input->kind() != ValueKind::kTensor) {
      out_.inputs.push_back({name, DataType::kInt64, {}});
      continue;
    }
    const std::vector<Dim>& sizes = input->type.sizes.value();
    out_.inputs.push_back({name, data_type(input->type.dtype.value()), sizes});
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i].is_symbolic()) symbols_.try_emplace(sizes[i].symbol, name, i);
    }
  }
}

// What the outputs need, up to what is stored: the decoding of a weight is not among it.
std::unordered_set<const Node*> Translator::live_nodes() {
  std::unordered_set<const Node*> live;
  std::vector<const Value*> pending;
  for (const Output& output : model_.graph().outputs()) {
    output.value.each_value([&](const Value* value) { pending.push_back(value); });
  }
  while (!pending.empty()) {
    const Value* value = pending.back();
    pending.pop_back();
    if (value->producer() == nullptr || weights_.contains(value) || is_constant(value)) continue;
    if (!live.insert(value->producer()).second) continue;
    for (const Argument& argument : value->producer()->arguments()) {
      argument.each_value([&](const Value* read) { pending.push_back(read); });
    }
  }
  return live;
}

void Translator::translate_node(const Node& node) {
  node_ = &node;
  const Rule rule = find_rule(node.op());
  if (rule == nullptr) throw Refusal{};
  Call call(*this, node);
  try {
    rule(call);
  } catch (const std::bad_variant_access&) {
    throw Refusal{"an argument that is computed when the network runs"};
  } catch (const Error& error) {
    throw Refusal{error.message()};
  }
  for (const Value* output : node.outputs()) {
    const bool is_bound = names_.contains(output) || scalars_.contains(output);
    if (!is_bound && !uses_.of(output).empty()) {
      throw Refusal{fmt::format("its output `{}`", output->name())};
    }
  }
}

void Translator::declare_outputs() {
  for (const Output& output : model_.graph().outputs()) {
    const Value* value = output.value.value();
    if (value == nullptr) {
      notes_.push_back(fmt::format("the output {} is a constant and is left out", output.name));
      continue;
    }
    const bool is_tensor = value->kind() == ValueKind::kTensor;
    std::string name = is_tensor ? name_of(value) : as_tensor(scalar(value));
    if (name != output.name) {
      OnnxNode identity{"Identity", {name}, {output.name}, {}, "output_" + output.name};
      const bool is_twice =
          std::any_of(out_.outputs.begin(), out_.outputs.end(),
                      [&](const TensorInfo& other) { return other.name == output.name; });
      if (is_twice) continue;
      taken_.insert(output.name);
      out_.nodes.push_back(std::move(identity));
    }
    if (is_tensor) {
      out_.outputs.push_back(
          {output.name, data_type(value->type.dtype.value()), value->type.sizes.value()});
    } else {
      out_.outputs.push_back({output.name, DataType::kInt64, {Dim(1)}});
    }
  }
}

void Translator::drop_unused() {
  std::unordered_set<std::string> used;
  for (const TensorInfo& output : out_.outputs) used.insert(output.name);
  std::vector<OnnxNode> nodes;
  for (auto node = out_.nodes.rbegin(); node != out_.nodes.rend(); ++node) {
    const bool is_used = std::any_of(node->outputs.begin(), node->outputs.end(),
                                     [&](const std::string& name) { return used.contains(name); });
    if (!is_used) continue;
    used.insert(node->inputs.begin(), node->inputs.end());
    nodes.push_back(std::move(*node));
  }
  std::reverse(nodes.begin(), nodes.end());
  out_.nodes = std::move(nodes);
  std::erase_if(out_.initializers,
                [&](const Initializer& tensor) { return !used.contains(tensor.name); });
}

std::string Translator::fresh(const std::string& wish) {
  std::string name = wish;
  for (int64_t& i = suffixes_[wish]; !taken_.insert(name).second;) {
    name = fmt::format("{}_{}", wish, ++i);
  }
  return name;
}

const std::string& Translator::name_of(const Value* value) {
  const auto found = names_.find(value);
  if (found != names_.end()) return found->second;
  const auto weight = weights_.find(value);
  if (weight != weights_.end()) {
    return names_[value] =
               add_decoded(weight->second, value->type.dtype.value(), /*transposed=*/false);
  }
  COMPRESS_CHECK(is_constant(value),
                 fmt::format("{} was translated before its use", value->name()));
  return names_[value] = add_stored(value);
}

// Whether a value depends on named tensors only and is worth storing.
bool Translator::is_constant(const Value* value) {
  const auto found = constant_.find(value);
  if (found != constant_.end()) return found->second;
  bool& result = constant_[value];
  const Node* node = value->producer();
  if (value->kind() != ValueKind::kTensor || weights_.contains(value)) return result = false;
  if (node == nullptr) return result = value->is_named_tensor();
  if (node->schema() == nullptr || is_random(*node)) return result = false;
  bool constant = !repeats(*node) || bytes_of(value) <= kFoldedBytes;
  for (const Argument& argument : node->arguments()) {
    argument.each_value([&](const Value* read) { constant = constant && is_constant(read); });
  }
  return constant_[value] = constant;
}

// A constant as it will be written; what is computed is computed then.
Initializer Translator::stored(const Value* value) const {
  const auto named = stored_names_.find(value);
  Initializer out;
  out.name = named == stored_names_.end() ? value->name() : named->second;
  if (value->is_named_tensor()) {
    const at::Tensor tensor = model_.tensor(value->name());
    out.type = data_type(tensor.scalar_type());
    out.sizes = tensor.sizes().vec();
    out.bytes = static_cast<int64_t>(tensor.nbytes());
    out.load = [tensor] { return tensor; };
    return out;
  }
  out.type = data_type(value->type.dtype.value());
  for (const Dim& dim : value->type.sizes.value()) out.sizes.push_back(dim.size);
  out.bytes = bytes_of(value);
  out.load = [&model = model_, value] {
    const at::NoGradGuard no_grad;
    return evaluate(model, value);
  };
  return out;
}

std::string Translator::add_stored(const Value* value) {
  Initializer tensor = stored(value);
  const bool has_name = value->is_named_tensor() || stored_names_.contains(value);
  if (!has_name && tensor.bytes <= kSharedBytes) return constant(tensor.load());
  return add_initializer(std::move(tensor));
}

std::string Translator::add_initializer(Initializer tensor) {
  tensor.name = fresh(tensor.name);
  out_.initializers.push_back(std::move(tensor));
  return out_.initializers.back().name;
}

std::string Translator::constant(const at::Tensor& tensor) {
  const at::Tensor stored = tensor.detach().contiguous();
  std::string key =
      fmt::format("{} {}:", static_cast<int>(stored.scalar_type()), fmt::join(stored.sizes(), ","));
  key.append(static_cast<const char*>(stored.const_data_ptr()), stored.nbytes());
  const auto found = constants_.find(key);
  if (found != constants_.end()) return found->second;
  const std::string name = add_initializer(
      {fmt::format("constant_{}", constants_.size()), data_type(stored.scalar_type()),
       stored.sizes().vec(), static_cast<int64_t>(stored.nbytes()), [stored] { return stored; }});
  return constants_[key] = name;
}

std::vector<std::string> Translator::emit(const std::string& op, std::vector<std::string> inputs,
                                          std::vector<Attribute> attributes, size_t outputs) {
  while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
  std::string path = node_ == nullptr ? "" : node_->module_path;
  std::replace(path.begin(), path.end(), '.', '/');
  OnnxNode node{
      op, std::move(inputs), {}, std::move(attributes), fresh(path.empty() ? op : path + "/" + op)};
  for (size_t i = 0; i < outputs; ++i) {
    node.outputs.push_back(
        fresh(outputs == 1 ? node.name + ":out" : fmt::format("{}:{}", node.name, i)));
  }
  out_.nodes.push_back(std::move(node));
  return out_.nodes.back().outputs;
}

// Gives the tensor the value's name where it was made for it, so that the file reads as the graph.
void Translator::bind(const Value* value, const std::string& name) {
  std::string& bound = names_[value] = name;
  if (out_.nodes.empty() || !bound_.insert(name).second) return;
  for (std::string& output : out_.nodes.back().outputs) {
    if (output != name) continue;
    taken_.erase(name);
    const auto wish = wished_.find(value);
    bound = output = wish != wished_.end() ? wish->second : fresh(value->name());
    bound_.insert(bound);
  }
}

void Translator::note(std::string text) {
  if (std::count(notes_.begin(), notes_.end(), text) == 0) notes_.push_back(std::move(text));
}

}  // namespace compress::onnx
