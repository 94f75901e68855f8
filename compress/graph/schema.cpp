// What the graph asks of an operator's schema.

#include "compress/graph/schema.h"

#include "compress/error.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>

#include <fmt/format.h>

#include <algorithm>

namespace compress {
namespace {

// A default of a schema as an argument; schemas have defaults of these kinds only. Those of
// ScalarType, Layout and MemoryFormat are numbers.
Argument from_default(const c10::IValue& value) {
  if (value.isBool()) return Argument(value.toBool());
  if (value.isInt()) return Argument(value.toInt());
  if (value.isDouble()) return Argument(value.toDouble());
  if (value.isString()) return Argument(value.toStringRef());
  if (value.isList()) {
    Argument::List list;
    for (const c10::IValue& element : value.toListRef()) list.push_back(from_default(element));
    return Argument(std::move(list));
  }
  return Argument();
}

// `int[2] stride=1`: a single number stands for a list of that length.
Argument expand_to_list(Argument argument, const c10::Argument& declared) {
  if (!declared.N() || argument.is_list() || argument.is_none()) return argument;
  if (argument.is_value()) return argument;
  return Argument(Argument::List(static_cast<size_t>(*declared.N()), argument));
}

}  // namespace

const c10::FunctionSchema* find_schema(const std::string& op) {
  const size_t dot = op.find('.');
  const std::string name = op.substr(0, dot);
  const std::string overload = dot == std::string::npos ? "" : op.substr(dot + 1);
  const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
  return handle ? &handle->schema() : nullptr;
}

std::optional<Argument> default_argument(const c10::FunctionSchema& schema, size_t index) {
  const c10::Argument& declared = schema.arguments().at(index);
  if (!declared.default_value()) return std::nullopt;
  return expand_to_list(from_default(*declared.default_value()), declared);
}

std::vector<Argument> complete_arguments(const c10::FunctionSchema& schema,
                                         std::vector<Argument> positional,
                                         const std::map<std::string, Argument>& keywords) {
  const auto& declared = schema.arguments();
  const std::string op = toString(schema.operator_name());
  const auto refuse = [&](const std::string& what, const std::string& hint = {}) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: {}", op, what), {}, hint);
  };
  if (positional.size() > declared.size()) {
    refuse(
        fmt::format("{} arguments given, at most {} expected", positional.size(), declared.size()));
  }
  std::vector<Argument> arguments;
  size_t keywords_used = 0;
  for (size_t i = 0; i < declared.size(); ++i) {
    const auto keyword = keywords.find(declared[i].name());
    const bool is_keyword = keyword != keywords.end();
    keywords_used += is_keyword;
    if (i < positional.size()) {
      if (is_keyword) refuse(fmt::format("argument `{}` is given twice", declared[i].name()));
      arguments.push_back(expand_to_list(std::move(positional[i]), declared[i]));
    } else if (is_keyword) {
      arguments.push_back(expand_to_list(keyword->second, declared[i]));
    } else if (std::optional<Argument> fallback = default_argument(schema, i)) {
      arguments.push_back(std::move(*fallback));
    } else {
      refuse(fmt::format("argument `{}` is missing", declared[i].name()));
    }
  }
  if (keywords_used != keywords.size()) {
    std::vector<std::string> names;
    for (const c10::Argument& argument : declared) names.push_back(argument.name());
    for (const auto& [name, argument] : keywords) {
      if (std::find(names.begin(), names.end(), name) == names.end()) {
        refuse(fmt::format("there is no argument `{}`", name), did_you_mean(name, names));
      }
    }
  }
  return arguments;
}

std::vector<ValueKind> return_kinds(const c10::FunctionSchema& schema, size_t list_size) {
  std::vector<ValueKind> kinds;
  for (const c10::Argument& returned : schema.returns()) {
    switch (returned.type()->kind()) {
      case c10::TypeKind::ListType:
        kinds.insert(kinds.end(), list_size, ValueKind::kTensor);
        break;
      case c10::TypeKind::IntType:
      case c10::TypeKind::SymIntType:
        kinds.push_back(ValueKind::kInt);
        break;
      case c10::TypeKind::FloatType:
      case c10::TypeKind::SymFloatType:
      case c10::TypeKind::NumberType:
        kinds.push_back(ValueKind::kFloat);
        break;
      case c10::TypeKind::BoolType:
      case c10::TypeKind::SymBoolType:
        kinds.push_back(ValueKind::kBool);
        break;
      default:
        kinds.push_back(ValueKind::kTensor);
    }
  }
  return kinds;
}

bool returns_list(const c10::FunctionSchema& schema) {
  for (const c10::Argument& returned : schema.returns()) {
    if (returned.type()->kind() == c10::TypeKind::ListType) return true;
  }
  return false;
}

std::string base_name(const std::string& op) {
  const size_t start = op.rfind("::") == std::string::npos ? 0 : op.rfind("::") + 2;
  return op.substr(start, op.find('.', start) - start);
}

std::string_view base_op(const Node& node) {
  const std::string_view op = node.op();
  return op.substr(0, op.find('.'));
}

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool has_side_effect(const Node& node) {
  if (node.schema() == nullptr) return !node.op().starts_with("scalar::");
  if (node.op() == "aten::batch_norm" || node.op() == "aten::instance_norm") {
    const auto training = node.argument_index("training");
    const Argument& mode =
        training ? node.arguments()[*training] : node.argument("use_input_stats");
    const bool updates = std::holds_alternative<bool>(mode.data()) && mode.as<bool>();
    return updates && !node.argument("running_mean").is_none();
  }
  return node.schema()->is_mutable();
}

}  // namespace compress
