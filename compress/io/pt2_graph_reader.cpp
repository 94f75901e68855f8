// From the JSON graph of an exported program to our graph, in-place operators still in place.

#include "compress/io/pt2_graph_reader.h"

#include "compress/error.h"
#include "compress/graph/schema.h"
#include "compress/io/pt2_types.h"

#include <ATen/core/function_schema.h>

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace compress::pt2 {
namespace {

using nlohmann::json;

// Checks that exporters leave in a program; they compute nothing, and pin sizes and dtypes that
// compression changes.
bool is_check(const std::string& op) {
  static const std::set<std::string> kChecks = {"_assert_tensor_metadata", "_assert_scalar",
                                                "_assert_async", "sym_constrain_range",
                                                "sym_constrain_range_for_size"};
  return op.starts_with("aten::") && kChecks.contains(base_name(op));
}

// Higher-order operators that run one subgraph as it is.
bool is_wrapper(const std::string& name) {
  static const std::set<std::string> kWrappers = {"wrap",
                                                  "wrap_with_set_grad_enabled",
                                                  "wrap_with_autocast",
                                                  "hints_wrapper",
                                                  "tag_activation_checkpoint",
                                                  "wrap_activation_checkpoint",
                                                  "strict_mode",
                                                  "invoke_subgraph"};
  return kWrappers.contains(name);
}

const std::map<std::string, std::string>& python_functions() {
  static const std::map<std::string, std::string> kFunctions = {
      {"_operator.add", "scalar::add"},
      {"_operator.sub", "scalar::sub"},
      {"_operator.mul", "scalar::mul"},
      {"_operator.floordiv", "scalar::floordiv"},
      {"_operator.truediv", "scalar::truediv"},
      {"_operator.mod", "scalar::mod"},
      {"_operator.neg", "scalar::neg"},
      {"_operator.pow", "scalar::pow"},
      {"_operator.eq", "scalar::eq"},
      {"_operator.ne", "scalar::ne"},
      {"_operator.lt", "scalar::lt"},
      {"_operator.le", "scalar::le"},
      {"_operator.gt", "scalar::gt"},
      {"_operator.ge", "scalar::ge"},
      {"_operator.and_", "scalar::and"},
      {"_operator.or_", "scalar::or"},
      {"math.ceil", "scalar::ceil"},
      {"math.floor", "scalar::floor"},
      {"math.trunc", "scalar::trunc"},
      {"builtins.round", "scalar::round"},
      {"builtins.abs", "scalar::abs"},
      {"torch.sym_max", "scalar::max"},
      {"torch.sym_min", "scalar::min"},
      {"torch.sym_not", "scalar::not"},
      {"torch.sym_int", "scalar::int"},
      {"torch.sym_float", "scalar::float"},
      {"torch.sym_sqrt", "scalar::sqrt"},
  };
  return kFunctions;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

Argument find_name(const JsonCursor& name, const Scope& scope) {
  const auto found = scope.find(name.string());
  if (found == scope.end()) {
    name.fail(fmt::format("`{}` is used before it is computed", name.string()));
  }
  return found->second;
}

// {"as_name": "s"} or {"as_int": 3} and the like.
Argument read_symbol(const JsonCursor& symbol, const Scope& scope) {
  const auto [kind, value] = symbol.alternative();
  if (kind == "as_name") return find_name(value, scope);
  if (kind == "as_int") return value.integer();
  if (kind == "as_float") return value.number();
  if (kind == "as_bool") return value.boolean();
  if (kind == "as_tensor") return find_name(value["name"], scope);
  if (kind == "as_none") return Argument();
  symbol.fail(fmt::format("`{}` is no kind of symbolic argument", kind));
}

template <class Read>
Argument read_list(const JsonCursor& list, const Read& read) {
  Argument::List result;
  for (const JsonCursor& element : list.elements()) result.push_back(read(element));
  return Argument(std::move(result));
}

bool is_symbolic_list(const std::string& kind) {
  return kind == "as_sym_ints" || kind == "as_sym_floats" || kind == "as_sym_bools" ||
         kind == "as_optional_tensors";
}

Error unsupported(const JsonCursor& place, const std::string& message,
                  const std::string& hint = {}) {
  return Error(ErrorCode::kUnsupported, message, place.where(), hint);
}

}  // namespace

std::string read_target(const std::string& target) {
  const auto function = python_functions().find(target);
  if (function != python_functions().end()) return function->second;
  constexpr std::string_view kOps = "torch.ops.";
  if (!target.starts_with(kOps)) return {};
  const std::vector<std::string> parts = split(target.substr(kOps.size()), '.');
  if (parts.size() < 2 || parts.size() > 3 || parts[0].empty() || parts[1].empty()) return {};
  std::string op = parts[0] + "::" + parts[1];
  if (parts.size() == 3 && parts[2] != "default") op += "." + parts[2];
  return op;
}

std::string target_of(const std::string& op) {
  if (op.starts_with("scalar::")) {
    for (const auto& [python, ours] : python_functions()) {
      if (ours == op) return python;
    }
    return {};
  }
  const size_t colons = op.find("::");
  if (colons == std::string::npos) return {};
  std::string name = op.substr(colons + 2);
  if (name.find('.') == std::string::npos) name += ".default";
  return "torch.ops." + op.substr(0, colons) + "." + name;
}

std::vector<std::pair<std::string, std::string>> read_module_stack(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> stack;
  for (const std::string& entry : split(text, ';')) {
    // "key,path,type": the type may contain commas, key and path do not.
    const size_t first = entry.find(',');
    const size_t second = first == std::string::npos ? first : entry.find(',', first + 1);
    if (second == std::string::npos) continue;
    std::string path = entry.substr(first + 1, second - first - 1);
    if (path.starts_with("_empty_nn_module_stack")) continue;
    for (const std::string_view prefix : {"L['self'].", "L['self']", "L__self__."}) {
      if (path.starts_with(prefix)) path = path.substr(prefix.size());
    }
    path = path.substr(0, path.find('@'));  // "layer@1" is the second call of `layer`
    stack.emplace_back(std::move(path), entry.substr(second + 1));
  }
  return stack;
}

TensorType GraphReader::type_of(const JsonCursor& graph, const std::string& name) {
  const JsonCursor values = graph["tensor_values"];
  return values.has(name.c_str()) ? read_tensor_type(values[name.c_str()]) : TensorType();
}

Argument GraphReader::read_argument(const JsonCursor& argument, const Scope& scope) const {
  const auto [kind, value] = argument.alternative();
  const auto name_of = [&](const JsonCursor& tensor) { return find_name(tensor["name"], scope); };
  if (kind == "as_none") return Argument();
  if (kind == "as_tensor") return name_of(value);
  if (kind == "as_tensors") return read_list(value, name_of);
  if (kind == "as_int") return value.integer();
  if (kind == "as_ints") return Argument(value.integers());
  if (kind == "as_float") return value.number();
  if (kind == "as_floats") return read_list(value, [](auto& x) { return Argument(x.number()); });
  if (kind == "as_bool") return value.boolean();
  if (kind == "as_bools") return read_list(value, [](auto& x) { return Argument(x.boolean()); });
  if (kind == "as_string") return value.string();
  if (kind == "as_strings") return read_list(value, [](auto& x) { return Argument(x.string()); });
  if (kind == "as_scalar_type") return read_dtype(value);
  if (kind == "as_memory_format") return read_memory_format(value);
  if (kind == "as_layout") return read_layout(value);
  if (kind == "as_device") return read_device(value);
  if (kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool" ||
      kind == "as_optional_tensor") {
    return read_symbol(value, scope);
  }
  if (is_symbolic_list(kind)) {
    return read_list(value, [&](auto& x) { return read_symbol(x, scope); });
  }
  if (kind == "as_custom_obj") {
    throw unsupported(argument, "the program uses a custom C++ object, which Lathe cannot run");
  }
  throw unsupported(argument, fmt::format("an argument of kind `{}`", kind));
}

std::string GraphReader::read_module_path(const JsonCursor& node) {
  if (!node.has("metadata") || !node["metadata"].has("nn_module_stack")) return {};
  const auto stack = read_module_stack(node["metadata"]["nn_module_stack"].string());
  for (const auto& [path, type] : stack) {
    if (!modules_.contains(path)) modules_[path] = type;
  }
  return stack.empty() ? std::string() : stack.back().first;
}

void GraphReader::append_nodes(const JsonCursor& graph, Scope& scope) {
  for (const JsonCursor& node : graph["nodes"].elements()) append_node(graph, node, scope);
}

void GraphReader::append_node(const JsonCursor& graph, const JsonCursor& node, Scope& scope) {
  const std::string& target = node["target"].string();
  const std::string op = read_target(target);
  if (op.empty()) {
    throw unsupported(node, fmt::format("the program calls the Python function `{}`", target),
                      "export the model without it");
  }
  if (op.starts_with("higher_order::")) {
    inline_subgraph(graph, node, op.substr(sizeof("higher_order::") - 1), scope);
  } else if (!is_check(op)) {
    append_call(graph, node, op, scope);
  }
}

std::vector<Argument> GraphReader::read_foreign_arguments(const JsonCursor& node,
                                                          const std::string& op,
                                                          const Scope& scope) {
  std::vector<Argument> arguments;
  json names = json::array();
  json keywords = json::array();
  for (const JsonCursor& input : node["inputs"].elements()) {
    arguments.push_back(read_argument(input["arg"], scope));
    names.push_back(input["name"].string());
    keywords.push_back(input.has("kind") && input["kind"].integer() == 2);
  }
  json call = {{"names", std::move(names)}, {"keywords", std::move(keywords)}};
  const json& outputs = node["outputs"].json();
  call["list"] = outputs.size() == 1 && outputs[0].contains("as_tensors");
  const std::string key = fmt::format("{}/{}", op, arguments.size());
  if (foreign_.contains(key) && foreign_[key] != call) {
    throw unsupported(node,
                      fmt::format("calls of `{}`, which this process does not know, differ in "
                                  "the names of their arguments",
                                  op));
  }
  foreign_[key] = std::move(call);
  return arguments;
}

std::vector<Argument> GraphReader::read_arguments(const JsonCursor& node, const std::string& op,
                                                  const Scope& scope) {
  if (op.starts_with("scalar::")) {
    std::vector<Argument> arguments;
    for (const JsonCursor& input : node["inputs"].elements()) {
      arguments.push_back(read_argument(input["arg"], scope));
    }
    return arguments;
  }
  const c10::FunctionSchema* schema = find_schema(op);
  if (schema == nullptr) return read_foreign_arguments(node, op, scope);
  std::vector<Argument> positional;
  std::map<std::string, Argument> keywords;
  for (const JsonCursor& input : node["inputs"].elements()) {
    const std::string& name = input["name"].string();
    Argument argument = read_argument(input["arg"], scope);
    if (name.empty()) {
      positional.push_back(std::move(argument));
    } else if (!keywords.emplace(name, std::move(argument)).second) {
      input.fail(fmt::format("argument `{}` is given twice", name));
    }
  }
  try {
    return complete_arguments(*schema, std::move(positional), keywords);
  } catch (const Error& error) {
    throw Error(ErrorCode::kBadFile, error.message(), node.where(), error.hint());
  }
}

GraphReader::Outputs GraphReader::read_outputs(const JsonCursor& node,
                                               const std::string& op) const {
  Outputs outputs;
  const c10::FunctionSchema* schema = find_schema(op);
  const auto add_symbol = [&](const JsonCursor& value, ValueKind kind) {
    outputs.emplace_back(value["as_name"].string(), kind);
  };
  for (const JsonCursor& output : node["outputs"].elements()) {
    const auto [kind, value] = output.alternative();
    if (kind == "as_tensor") {
      outputs.emplace_back(value["name"].string(), ValueKind::kTensor);
    } else if (kind == "as_tensors") {
      for (const JsonCursor& element : value.elements()) {
        outputs.emplace_back(element["name"].string(), ValueKind::kTensor);
      }
    } else if (kind == "as_sym_int") {
      add_symbol(value, ValueKind::kInt);
    } else if (kind == "as_sym_float") {
      add_symbol(value, ValueKind::kFloat);
    } else if (kind == "as_sym_bool") {
      add_symbol(value, ValueKind::kBool);
    } else if (kind == "as_none") {
      if (schema != nullptr && schema->returns().empty()) continue;
      outputs.emplace_back(base_name(op) + "_none", ValueKind::kTensor);
    } else {
      throw unsupported(output, fmt::format("an output of kind `{}`", kind));
    }
  }
  if (schema != nullptr) {
    const size_t list = returns_list(*schema) ? outputs.size() + 1 - schema->returns().size() : 1;
    const bool possible = outputs.size() + 1 >= schema->returns().size();
    if (!possible || return_kinds(*schema, list).size() != outputs.size()) {
      node.fail(fmt::format("{} outputs, but {} returns {}", outputs.size(), op,
                            schema->returns().size()));
    }
  }
  return outputs;
}

void GraphReader::note_scalar(const JsonCursor& graph, const std::string& name,
                              const std::string& value) {
  if (!graph.has("sym_int_values") || !graph["sym_int_values"].has(name.c_str())) return;
  const Dim dim = read_dim(graph["sym_int_values"][name.c_str()]);
  if (dim.is_symbolic()) scalars_[value] = dim.symbol;
}

void GraphReader::append_call(const JsonCursor& graph, const JsonCursor& node,
                              const std::string& op, Scope& scope) {
  const Outputs outputs = read_outputs(node, op);
  Node* added = model_.graph().insert_raw(nullptr, op, read_arguments(node, op, scope), outputs);
  added->module_path = read_module_path(node);
  for (size_t i = 0; i < outputs.size(); ++i) {
    Value* value = added->outputs()[i];
    const std::string& name = outputs[i].first;
    if (outputs[i].second == ValueKind::kTensor) value->type = type_of(graph, name);
    if (outputs[i].second == ValueKind::kInt && !op.starts_with("scalar::")) {
      note_scalar(graph, name, value->name());
    }
    if (!scope.emplace(name, Argument(value)).second && !name.ends_with("_none")) {
      node.fail(fmt::format("`{}` is computed twice", name));
    }
  }
}

void GraphReader::call_subgraph(const JsonCursor& subgraph, const std::vector<Argument>& operands,
                                std::vector<Argument>& results) {
  const std::vector<JsonCursor> inputs = subgraph["inputs"].elements();
  if (inputs.size() != operands.size()) {
    subgraph.fail(
        fmt::format("{} inputs, but the call has {} operands", inputs.size(), operands.size()));
  }
  Scope scope;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto [kind, value] = inputs[i].alternative();
    if (kind == "as_tensor") {
      scope[value["name"].string()] = operands[i];
    } else if (value.has("as_name")) {
      scope[value["as_name"].string()] = operands[i];
    }
  }
  append_nodes(subgraph, scope);
  for (const JsonCursor& output : subgraph["outputs"].elements()) {
    results.push_back(read_argument(output, scope));
  }
}

void GraphReader::inline_subgraph(const JsonCursor& graph, const JsonCursor& node,
                                  const std::string& op, Scope& scope) {
  const std::string path = read_module_path(node);
  if (!is_wrapper(op)) {
    throw unsupported(node,
                      fmt::format("`{}`{} is not a straight line of operators", op,
                                  path.empty() ? "" : fmt::format(" in module `{}`", path)),
                      "Lathe does not compress control flow; export the part without it");
  }
  std::optional<JsonCursor> subgraph;
  std::vector<Argument> operands, flags;
  for (const JsonCursor& input : node["inputs"].elements()) {
    const auto [kind, value] = input["arg"].alternative();
    if (kind == "as_graph") {
      subgraph = value["graph"];
    } else if (input.has("kind") && input["kind"].integer() == 2) {
      continue;  // use_reentrant and the like
    } else if (kind == "as_string" || kind == "as_string_to_argument") {
      continue;  // an identifier, or hints
    } else {
      Argument argument = read_argument(input["arg"], scope);
      (subgraph ? operands : flags).push_back(std::move(argument));
    }
  }
  if (!subgraph) node.fail(fmt::format("`{}` has no subgraph", op));
  // wrap_with_autocast(device, dtype, enabled, cache_enabled, graph, ...); strings were skipped.
  if (op == "wrap_with_autocast" && flags.size() >= 2 &&
      !(flags[flags.size() - 2] == Argument(false))) {
    throw unsupported(node, "a region under autocast", "export the model without autocast");
  }
  std::vector<Argument> results;
  call_subgraph(*subgraph, operands, results);
  const bool no_gradients =
      op == "wrap_with_set_grad_enabled" && !flags.empty() && flags[0] == Argument(false);
  size_t next = 0;
  const auto bind = [&](const std::string& name) {
    if (next >= results.size()) node.fail("more outputs than the subgraph has");
    Argument result = results[next++];
    Value* value = result.value();
    const bool differentiable = value != nullptr && value->kind() == ValueKind::kTensor &&
                                value->type.dtype && c10::isFloatingType(*value->type.dtype);
    if (no_gradients && differentiable) {
      Node* detach = model_.graph().append({"aten::detach", {value}, {}, name, 1, path});
      detach->output()->type = value->type;
      result = Argument(detach->output());
    }
    scope[name] = std::move(result);
  };
  for (const JsonCursor& output : node["outputs"].elements()) {
    const auto [kind, value] = output.alternative();
    if (kind == "as_tensor") {
      bind(value["name"].string());
    } else if (kind == "as_tensors") {
      for (const JsonCursor& element : value.elements()) bind(element["name"].string());
    } else if (kind == "as_none") {
      ++next;
    } else {
      bind(value["as_name"].string());
    }
  }
}

}  // namespace compress::pt2
