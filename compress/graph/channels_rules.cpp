// What a rule sees of a node, and which rule belongs to which operator.

#include "compress/graph/channels_rules.h"

#include "compress/graph/schema.h"

#include <ATen/core/Tensor.h>

namespace compress {

const TensorChannels* RuleCall::take(const Value* value) {
  if (value == nullptr || value->kind() != ValueKind::kTensor) return nullptr;
  taken_.insert(value);
  return &known_.at(value);
}

const TensorChannels* RuleCall::find(std::string_view name) {
  const std::optional<size_t> index = node.argument_index(name);
  return index ? take(node.arguments()[*index].value()) : nullptr;
}

const TensorChannels& RuleCall::operand(std::string_view name) {
  const TensorChannels* found = find(name);
  if (found == nullptr) throw NoChannelRule{"has no tensor `" + std::string(name) + "`"};
  return *found;
}

const TensorChannels& RuleCall::operand(size_t index) {
  if (index >= node.arguments().size()) throw NoChannelRule{"has too few arguments"};
  const TensorChannels* found = take(node.arguments()[index].value());
  if (found == nullptr) throw NoChannelRule{"reads no tensor"};
  return *found;
}

std::vector<const TensorChannels*> RuleCall::list(std::string_view name) {
  std::vector<const TensorChannels*> found;
  node.argument(name).each_value([&](const Value* value) {
    if (const TensorChannels* channels = take(value)) found.push_back(channels);
  });
  return found;
}

std::vector<const TensorChannels*> RuleCall::all() {
  std::vector<const TensorChannels*> found;
  for (const Argument& argument : node.arguments()) {
    argument.each_value([&](const Value* value) {
      if (const TensorChannels* channels = take(value)) found.push_back(channels);
    });
  }
  return found;
}

bool RuleCall::is_tensor(std::string_view name) const {
  const std::optional<size_t> index = node.argument_index(name);
  const Value* value = index ? node.arguments()[*index].value() : nullptr;
  return value != nullptr && value->kind() == ValueKind::kTensor;
}

int64_t RuleCall::integer(std::string_view name) const {
  const std::optional<size_t> index = node.argument_index(name);
  if (!index || !node.arguments()[*index].is_int()) {
    throw NoChannelRule{"computes `" + std::string(name) + "`"};
  }
  return node.arguments()[*index].as<int64_t>();
}

bool RuleCall::flag(std::string_view name) const {
  const std::optional<size_t> index = node.argument_index(name);
  if (!index) return false;
  const bool* constant = std::get_if<bool>(&node.arguments()[*index].data());
  return constant != nullptr && *constant;
}

std::vector<int64_t> RuleCall::integers(std::string_view name) const {
  const std::optional<size_t> index = node.argument_index(name);
  if (!index || node.arguments()[*index].is_none()) return {};
  const Argument& argument = node.arguments()[*index];
  if (argument.is_int()) return {argument.as<int64_t>()};
  if (!argument.is_list()) throw NoChannelRule{"computes `" + std::string(name) + "`"};
  std::vector<int64_t> numbers;
  for (const Argument& element : argument.list()) {
    if (!element.is_int()) throw NoChannelRule{"computes `" + std::string(name) + "`"};
    numbers.push_back(element.as<int64_t>());
  }
  return numbers;
}

std::optional<std::vector<int64_t>> RuleCall::constant_vector(std::string_view name) const {
  const Value* value = node.argument(name).value();
  if (value == nullptr || !value->is_named_tensor()) return std::nullopt;
  const at::Tensor& tensor = model_.tensor(value->name());
  if (!tensor.defined() || tensor.dim() != 1) return std::nullopt;
  const at::Tensor numbers = tensor.to(at::kLong).contiguous();
  const auto* first = numbers.const_data_ptr<int64_t>();
  return std::vector<int64_t>(first, first + numbers.numel());
}

const std::vector<int64_t>& RuleCall::sizes(size_t index) const {
  const auto found = sizes_.find(node.outputs().at(index));
  if (found == sizes_.end()) throw NoChannelRule{"has results of unknown sizes"};
  return found->second;
}

void RuleCall::give(TensorChannels channels, size_t index) {
  const std::vector<int64_t>& expected = sizes(index);
  bool fits = channels.labels.size() == expected.size();
  for (size_t d = 0; fits && d < expected.size(); ++d) {
    fits = channels.labels[d]->size() == static_cast<size_t>(expected[d]);
  }
  if (!fits) throw NoChannelRule{"has sizes that its rule does not expect"};
  for (size_t d = 0; d < expected.size(); ++d) {
    if (expected[d] <= 1) channels.labels[d] = labels.stays(expected[d]);
  }
  known_[node.outputs()[index]] = std::move(channels);
}

void RuleCall::join(const Labels& a, const Labels& b) {
  if (a->size() != b->size()) throw NoChannelRule{"has operands whose sizes its rule cannot match"};
  labels.join(a, b, &node);
}

void RuleCall::freeze(const Labels& dimension, const std::string& why) {
  labels.freeze(dimension, &node, why);
}

void RuleCall::freeze(const TensorChannels& channels, const std::string& why) {
  for (const Labels& dimension : channels.labels) freeze(dimension, why);
}

TensorChannels RuleCall::broadcast(const std::vector<const TensorChannels*>& operands,
                                   const std::vector<int64_t>& sizes) {
  TensorChannels result;
  const auto rank = static_cast<int64_t>(sizes.size());
  for (int64_t d = 0; d < rank; ++d) {
    Labels joined;
    for (const TensorChannels* operand : operands) {
      const int64_t own = d - rank + operand->rank();
      if (own < 0 || operand->size(own) != sizes[d] || sizes[d] == 1) continue;
      if (joined == nullptr || labels.is_fixed(joined)) {
        if (joined != nullptr) join(joined, operand->labels[own]);
        joined = operand->labels[own];
      } else {
        join(joined, operand->labels[own]);
      }
    }
    result.add(joined == nullptr ? labels.stays(sizes[d]) : joined, false);
  }
  return result;
}

void RuleCall::contract(const TensorChannels& a, int64_t a_dim, const TensorChannels& b,
                        int64_t b_dim) {
  const Labels &left = a.labels.at(a_dim), &right = b.labels.at(b_dim);
  join(left, right);
  if (a.zero[a_dim] || b.zero[b_dim]) return;
  labels.mark_inexact(left, &node, "sums over products that are not zero where channels go");
  labels.mark_inexact(right, &node, "sums over products that are not zero where channels go");
}

void RuleCall::finish() {
  for (const Argument& argument : node.arguments()) {
    argument.each_value([&](const Value* value) {
      if (value->kind() != ValueKind::kTensor || taken_.contains(value)) return;
      freeze(known_.at(value), "is read by an operator in a way that fixes it");
    });
  }
}

ChannelRule find_channel_rule(const std::string& op) {
  static const ChannelRules rules = [] {
    ChannelRules all;
    add_elementwise_rules(all);
    add_reduction_rules(all);
    add_normalisation_rules(all);
    add_contraction_rules(all);
    add_movement_rules(all);
    add_view_rules(all);
    add_recurrent_rules(all);
    return all;
  }();
  const size_t start = op.rfind("::");
  auto found = rules.find(start == std::string::npos ? op : op.substr(start + 2));
  if (found == rules.end()) found = rules.find(base_name(op));
  return found == rules.end() ? nullptr : found->second;
}

}  // namespace compress
