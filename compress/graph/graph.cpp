// Construction and editing of graphs.

#include "compress/graph/graph.h"

#include "compress/error.h"
#include "compress/graph/schema.h"

#include <ATen/core/function_schema.h>

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace compress {

std::vector<int64_t> Argument::ints() const {
  std::vector<int64_t> numbers;
  for (const Argument& element : list()) numbers.push_back(element.as<int64_t>());
  return numbers;
}

bool operator==(const Argument& a, const Argument& b) { return a.data_ == b.data_; }

std::optional<size_t> Node::argument_index(std::string_view name) const {
  if (schema_ == nullptr) return std::nullopt;
  const auto& declared = schema_->arguments();
  for (size_t i = 0; i < declared.size() && i < arguments_.size(); ++i) {
    if (declared[i].name() == name) return i;
  }
  return std::nullopt;
}

const Argument& Node::argument(std::string_view name) const {
  const std::optional<size_t> index = argument_index(name);
  if (!index) throw std::out_of_range(fmt::format("{} has no argument {}", op_, name));
  return arguments_[*index];
}

UseMap::UseMap(const Graph& graph) {
  for (const Node& node : graph.nodes()) {
    for (size_t i = 0; i < node.arguments().size(); ++i) {
      node.arguments()[i].each_value([&](Value* value) {
        std::vector<Use>& uses = uses_[value];
        const bool repeated = !uses.empty() && uses.back().node == &node && uses.back().index == i;
        if (!repeated) uses.push_back({const_cast<Node*>(&node), i, false});
      });
    }
  }
  const auto add_outputs = [this](const std::vector<Output>& outputs, bool is_update) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      outputs[i].value.each_value([&](Value* value) {
        uses_[value].push_back({nullptr, i, is_update});
      });
    }
  };
  add_outputs(graph.outputs(), false);
  add_outputs(graph.updates(), true);
}

const std::vector<Use>& UseMap::of(const Value* value) const& {
  static const std::vector<Use> kNone;
  const auto found = uses_.find(value);
  return found == uses_.end() ? kNone : found->second;
}

Node* UseMap::first_node(const Value* value) const {
  const std::vector<Use>& uses = of(value);  // nodes first, outputs after them
  return uses.empty() ? nullptr : uses.front().node;
}

Graph Graph::clone(std::unordered_map<const Value*, Value*>* copied) const {
  Graph copy;
  std::unordered_map<const Value*, Value*> map;
  const auto copy_value = [&](const Value* value) {
    Value* twin = copy.new_value(value->name_, value->kind_, true);
    twin->role_ = value->role_;
    twin->type = value->type;
    twin->output_index_ = value->output_index_;
    return map[value] = twin;
  };
  const auto twin_of = [&](Value* value) { return map.at(value); };
  for (const Value* value : inputs_) copy.inputs_.push_back(copy_value(value));
  for (const Value* value : named_tensors_) copy.named_tensors_.push_back(copy_value(value));
  for (const Node& node : nodes_) {
    Node& twin = copy.nodes_.emplace_back();
    twin.position_ = std::prev(copy.nodes_.end());
    twin.op_ = node.op_;
    twin.schema_ = node.schema_;
    twin.module_path = node.module_path;
    twin.arguments_ = node.arguments_;
    for (Argument& argument : twin.arguments_) argument.map_values(twin_of);
    for (const Value* output : node.outputs_) {
      twin.outputs_.push_back(copy_value(output));
      twin.outputs_.back()->producer_ = &twin;
    }
  }
  copy.outputs_ = outputs_;
  copy.updates_ = updates_;
  for (Output& output : copy.outputs_) output.value.map_values(twin_of);
  for (Output& update : copy.updates_) update.value.map_values(twin_of);
  if (copied != nullptr) *copied = std::move(map);
  return copy;
}

Value* Graph::new_value(std::string name, ValueKind kind, bool exact_name) {
  if (by_name_.contains(name)) {
    if (exact_name) {
      throw Error(ErrorCode::kInvalidArgument, fmt::format("the name `{}` is taken", name));
    }
    uint64_t& suffix = next_suffix_[name];
    std::string candidate;
    do {
      candidate = fmt::format("{}_{}", name, ++suffix);
    } while (by_name_.contains(candidate));
    name = std::move(candidate);
  }
  Value& value = values_.emplace_back();
  value.position_ = std::prev(values_.end());
  value.name_ = std::move(name);
  value.kind_ = kind;
  by_name_[value.name_] = &value;
  ++version_;
  return &value;
}

void Graph::free_value(Value* value) {
  by_name_.erase(value->name_);
  values_.erase(value->position_);
  ++version_;
}

Value* Graph::add_input(std::string name, TensorType type, ValueKind kind) {
  Value* value = new_value(std::move(name), kind, false);
  value->role_ = Value::Role::kInput;
  value->type = std::move(type);
  inputs_.push_back(value);
  return value;
}

Value* Graph::add_named_tensor(const std::string& name, TensorType type) {
  Value* value = new_value(name, ValueKind::kTensor, true);
  value->role_ = Value::Role::kNamedTensor;
  value->type = std::move(type);
  named_tensors_.push_back(value);
  return value;
}

void Graph::erase_named_tensor(Value* value) {
  COMPRESS_CHECK(value->is_named_tensor(), "only a named tensor's value can be erased");
  std::erase(named_tensors_, value);
  free_value(value);
}

void Graph::rename(Value* value, const std::string& name) {
  if (value->name_ == name) return;
  if (by_name_.contains(name)) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("the name `{}` is taken", name));
  }
  by_name_.erase(value->name_);
  value->name_ = name;
  by_name_[name] = value;
  ++version_;
}

Node* Graph::insert(Node* before, Call call) {
  const c10::FunctionSchema* schema = find_schema(call.op);
  if (schema == nullptr) {
    throw Error(ErrorCode::kUnsupported, fmt::format("there is no operator `{}`", call.op));
  }
  std::vector<Argument> arguments =
      complete_arguments(*schema, std::move(call.arguments), call.keywords);
  std::string name = call.name.empty() ? base_name(call.op) : call.name;
  std::vector<std::pair<std::string, ValueKind>> outputs;
  for (const ValueKind kind : return_kinds(*schema, call.list_size))
    outputs.emplace_back(name, kind);
  Node* node = insert_raw(before, std::move(call.op), std::move(arguments), outputs);
  node->module_path = std::move(call.module_path);
  return node;
}

Node* Graph::insert_raw(Node* before, std::string op, std::vector<Argument> arguments,
                        const std::vector<std::pair<std::string, ValueKind>>& outputs) {
  const auto position = nodes_.emplace(before == nullptr ? nodes_.end() : before->position_);
  Node& node = *position;
  node.position_ = position;
  node.schema_ = find_schema(op);
  node.op_ = std::move(op);
  node.arguments_ = std::move(arguments);
  for (const auto& [name, kind] : outputs) {
    Value* value = new_value(name, kind, false);
    value->producer_ = &node;
    value->output_index_ = node.outputs_.size();
    node.outputs_.push_back(value);
  }
  ++version_;
  return &node;
}

void Graph::erase(Node* node) {
  for (Value* output : node->outputs_) free_value(output);
  nodes_.erase(node->position_);
  ++version_;
}

void Graph::set_argument(Node* node, size_t index, Argument argument) {
  node->arguments_.at(index) = std::move(argument);
  ++version_;
}

void Graph::set_argument(Node* node, std::string_view name, Argument argument) {
  const std::optional<size_t> index = node->argument_index(name);
  if (!index) throw std::out_of_range(fmt::format("{} has no argument {}", node->op_, name));
  set_argument(node, *index, std::move(argument));
}

void Graph::set_op(Node* node, const std::string& op) {
  node->op_ = op;
  node->schema_ = find_schema(op);
  ++version_;
}

void Graph::replace_uses(Value* value, Value* with, const Node* except) {
  const auto replace = [&](Value* used) { return used == value ? with : used; };
  for (Node& node : nodes_) {
    if (&node == except) continue;
    for (Argument& argument : node.arguments_) argument.map_values(replace);
  }
  for (Output& output : outputs_) output.value.map_values(replace);
  for (Output& update : updates_) update.value.map_values(replace);
  ++version_;
}

std::vector<std::string> Graph::remove_dead() {
  std::unordered_map<const Value*, size_t> uses;
  const auto count = [&](const Argument& argument) {
    argument.each_value([&](Value* value) { ++uses[value]; });
  };
  for (const Output& output : outputs_) count(output.value);
  for (const Output& update : updates_) {
    count(update.value);
    if (Value* buffer = find(update.name)) ++uses[buffer];
  }
  // Backwards, so that a node whose last reader died dies in the same sweep.
  for (auto it = nodes_.end(); it != nodes_.begin();) {
    Node& node = *--it;
    const bool used = std::any_of(node.outputs_.begin(), node.outputs_.end(),
                                  [&](const Value* output) { return uses[output] > 0; });
    if (used || has_side_effect(node)) {
      for (const Argument& argument : node.arguments_) count(argument);
    } else {
      const auto next = std::next(it);
      erase(&node);
      it = next;
    }
  }
  std::vector<std::string> removed;
  const std::vector<Value*> candidates = named_tensors_;
  for (Value* value : candidates) {
    if (uses[value] > 0) continue;
    removed.push_back(value->name_);
    erase_named_tensor(value);
  }
  return removed;
}

void Graph::set_outputs(std::vector<Output> outputs) {
  outputs_ = std::move(outputs);
  ++version_;
}

void Graph::set_updates(std::vector<Output> updates) {
  updates_ = std::move(updates);
  ++version_;
}

Value* Graph::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : found->second;
}

}  // namespace compress
