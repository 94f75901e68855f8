// From our graph to the JSON of an exported program.

#include "compress/io/pt2_graph_writer.h"

#include "compress/error.h"
#include "compress/graph/schema.h"
#include "compress/io/pt2_graph_reader.h"
#include "compress/io/pt2_signature.h"
#include "compress/io/pt2_types.h"

#include <ATen/core/function_schema.h>
#include <ATen/core/jit_type.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace compress::pt2 {
namespace {

using nlohmann::json;

constexpr int kPositional = 1, kKeyword = 2;

// JSON has no infinities; the exporter writes them in quotes.
json number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

const char* symbol_kind(ValueKind kind) {
  if (kind == ValueKind::kInt) return "as_sym_int";
  return kind == ValueKind::kFloat ? "as_sym_float" : "as_sym_bool";
}

bool is_tensor(const Argument& argument) {
  return argument.is_value() && argument.value()->kind() == ValueKind::kTensor;
}

template <class T>
bool any_is(const Argument::List& list) {
  return std::any_of(list.begin(), list.end(), [](const Argument& element) {
    return std::holds_alternative<T>(element.data());
  });
}

bool wants_tensors(const c10::Argument& declared) {
  const c10::TypePtr& type = declared.type();
  return type->kind() == c10::TypeKind::ListType &&
         type->expectRef<c10::ListType>().getElementType()->isSubtypeOf(
             *c10::OptionalType::ofTensor());
}

// Python's arithmetic on sizes as sympy's functions.
const std::map<std::string, std::string>& sympy_functions() {
  static const std::map<std::string, std::string> kFunctions = {{"scalar::add", "Add"},
                                                                {"scalar::mul", "Mul"},
                                                                {"scalar::floordiv", "FloorDiv"},
                                                                {"scalar::mod", "PythonMod"},
                                                                {"scalar::pow", "PowByNatural"},
                                                                {"scalar::max", "Max"},
                                                                {"scalar::min", "Min"},
                                                                {"scalar::truediv", "IntTrueDiv"},
                                                                {"scalar::float", "ToFloat"},
                                                                {"scalar::int", "TruncToInt"},
                                                                {"scalar::trunc", "TruncToInt"},
                                                                {"scalar::ceil", "CeilToInt"},
                                                                {"scalar::floor", "FloorToInt"},
                                                                {"scalar::round", "RoundToInt"},
                                                                {"scalar::eq", "Equality"},
                                                                {"scalar::ne", "Unequality"},
                                                                {"scalar::lt", "StrictLessThan"},
                                                                {"scalar::le", "LessThan"},
                                                                {"scalar::gt", "StrictGreaterThan"},
                                                                {"scalar::ge", "GreaterThan"},
                                                                {"scalar::not", "Not"},
                                                                {"scalar::and", "And"},
                                                                {"scalar::or", "Or"}};
  return kFunctions;
}

}  // namespace

GraphWriter::GraphWriter(const Model& model, FileNames& names, FileSymbols& symbols)
    : model_(model), names_(names), symbols_(symbols), metadata_(read_metadata(model)) {
  derive_scalars();
}

json GraphWriter::reference(const Value* value) const {
  const std::string& name = names_.of(value);
  if (value->kind() == ValueKind::kTensor) return {{"as_tensor", {{"name", name}}}};
  return {{symbol_kind(value->kind()), {{"as_name", name}}}};
}

json GraphWriter::list(const Argument::List& list, bool of_tensors) const {
  if (list.empty()) return {{of_tensors ? "as_tensors" : "as_ints", json::array()}};
  const bool tensors = std::any_of(list.begin(), list.end(), is_tensor);
  const bool holes = std::any_of(list.begin(), list.end(),
                                 [](const Argument& element) { return element.is_none(); });
  json elements = json::array();
  if (tensors || holes) {
    for (const Argument& element : list) {
      if (element.is_none()) {
        elements.push_back({{"as_none", true}});
      } else if (holes) {
        elements.push_back(reference(element.value()));
      } else {
        elements.push_back({{"name", names_.of(element.value())}});
      }
    }
    return {{holes ? "as_optional_tensors" : "as_tensors", std::move(elements)}};
  }
  const bool floats = any_is<double>(list);
  const bool symbolic = any_is<Value*>(list);
  for (const Argument& element : list) {
    json constant;
    if (const Value* value = element.value()) {
      elements.push_back({{"as_name", names_.of(value)}});
      continue;
    }
    if (std::holds_alternative<bool>(element.data()))
      constant = element.as<bool>();
    else if (element.is_int() && floats)
      constant = static_cast<double>(element.as<int64_t>());
    else if (element.is_int())
      constant = element.as<int64_t>();
    else if (std::holds_alternative<double>(element.data()))
      constant = number(element.as<double>());
    else if (std::holds_alternative<std::string>(element.data()))
      constant = element.as<std::string>();
    else
      throw Error(ErrorCode::kUnsupported, "a list of lists cannot be written to a .pt2 file");
    const char* kind = floats ? "as_float" : constant.is_boolean() ? "as_bool" : "as_int";
    elements.push_back(symbolic ? json{{kind, std::move(constant)}} : std::move(constant));
  }
  if (any_is<bool>(list)) return {{symbolic ? "as_sym_bools" : "as_bools", std::move(elements)}};
  if (any_is<std::string>(list)) return {{"as_strings", std::move(elements)}};
  if (floats) return {{symbolic ? "as_sym_floats" : "as_floats", std::move(elements)}};
  return {{symbolic ? "as_sym_ints" : "as_ints", std::move(elements)}};
}

json GraphWriter::argument(const Argument& argument) const {
  struct Writer {
    const GraphWriter& self;
    json operator()(std::monostate) const { return {{"as_none", true}}; }
    json operator()(Value* value) const { return self.reference(value); }
    json operator()(bool value) const { return {{"as_bool", value}}; }
    json operator()(int64_t value) const { return {{"as_int", value}}; }
    json operator()(double value) const { return {{"as_float", number(value)}}; }
    json operator()(const std::string& value) const { return {{"as_string", value}}; }
    json operator()(c10::ScalarType value) const {
      return {{"as_scalar_type", dtype_number(value)}};
    }
    json operator()(c10::Layout value) const { return {{"as_layout", layout_number(value)}}; }
    json operator()(c10::MemoryFormat value) const {
      return {{"as_memory_format", memory_format_number(value)}};
    }
    json operator()(c10::Device value) const {
      json index = nullptr;
      if (value.has_index()) index = static_cast<int>(value.index());
      return {{"as_device",
               {{"type", c10::DeviceTypeName(value.type(), true)}, {"index", std::move(index)}}}};
    }
    json operator()(const Argument::List& list) const { return self.list(list, false); }
  };
  return std::visit(Writer{*this}, argument.data());
}

// Trailing arguments that equal their defaults are left out, as the exporter does.
json GraphWriter::inputs(const Node& node) const {
  const std::vector<Argument>& arguments = node.arguments();
  if (node.schema() == nullptr) return foreign_inputs(node);
  const auto& declared = node.schema()->arguments();
  const auto is_default = [&](size_t i) {
    const std::optional<Argument> fallback = default_argument(*node.schema(), i);
    return fallback && *fallback == arguments[i];
  };
  size_t last_positional = 0;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!declared[i].kwarg_only() && !is_default(i)) last_positional = i + 1;
  }
  json inputs = json::array();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool keyword = declared[i].kwarg_only();
    if (keyword ? is_default(i) : i >= last_positional) continue;
    const bool empty_list = arguments[i].is_list() && arguments[i].list().empty();
    inputs.push_back(
        {{"name", declared[i].name()},
         {"arg", empty_list ? list({}, wants_tensors(declared[i])) : argument(arguments[i])},
         {"kind", keyword ? kKeyword : kPositional}});
  }
  return inputs;
}

json GraphWriter::foreign_inputs(const Node& node) const {
  const std::vector<Argument>& arguments = node.arguments();
  json names, keywords;
  if (node.op().starts_with("scalar::")) {
    names = arguments.size() == 1 ? json::array({"a"}) : json::array({"a", "b"});
    keywords = json::array({false, false});
  } else {
    const json foreign = metadata_.value("foreign", json::object());
    const json call =
        foreign.value(fmt::format("{}/{}", node.op(), arguments.size()), json::object());
    names = call.value("names", json::array());
    keywords = call.value("keywords", json::array());
  }
  if (names.size() < arguments.size() || keywords.size() < arguments.size()) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("the names of the arguments of `{}` are not known", node.op()),
                node.module_path);
  }
  json inputs = json::array();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool keyword = keywords[i].is_boolean() && keywords[i].get<bool>();
    inputs.push_back({{"name", names[i]},
                      {"arg", argument(arguments[i])},
                      {"kind", keyword ? kKeyword : kPositional}});
  }
  return inputs;
}

json GraphWriter::outputs(const Node& node) const {
  bool returns_one_list = false;
  if (node.schema() != nullptr) {
    returns_one_list = node.schema()->returns().size() == 1 && returns_list(*node.schema());
  } else if (metadata_.contains("foreign")) {
    const std::string key = fmt::format("{}/{}", node.op(), node.arguments().size());
    const json call = metadata_["foreign"].value(key, json::object());
    returns_one_list = call.value("list", false);
  }
  json outputs = json::array();
  if (returns_one_list) {
    json elements = json::array();
    for (const Value* output : node.outputs()) elements.push_back({{"name", names_.of(output)}});
    outputs.push_back({{"as_tensors", std::move(elements)}});
    return outputs;
  }
  for (const Value* output : node.outputs()) {
    const bool absent = output->kind() == ValueKind::kTensor && !output->type.dtype &&
                        output->name().find("_none") != std::string::npos;
    outputs.push_back(absent ? json{{"as_none", true}} : reference(output));
  }
  return outputs;
}

// "key,path,type" of every module around a node, outermost first.
std::string GraphWriter::module_stack(const std::string& path) const {
  const json modules = metadata_.value("modules", json::object());
  const auto entry = [&](const std::string& module) {
    std::string key = "L__self__" + module;
    std::replace(key.begin(), key.end(), '.', '_');
    const json type = modules.value(module, json("torch.nn.modules.module.Module"));
    return fmt::format(
        "{},{},{}", key, module,
        type.is_string() ? type.get<std::string>() : "torch.nn.modules.module.Module");
  };
  std::string stack = entry("");
  for (size_t end = path.find('.'); !path.empty(); end = path.find('.', end + 1)) {
    const std::string module = path.substr(0, end);
    // Containers that are never called themselves (ModuleList) are not part of the stack.
    const bool last = end == std::string::npos;
    if (last || modules.size() <= 1 || modules.contains(module)) stack += ";" + entry(module);
    if (last) break;
  }
  return stack;
}

json GraphWriter::node(const Node& node) {
  const std::string target = target_of(node.op());
  if (target.empty() || node.op().starts_with("lathe::")) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("Python's torch has no operator `{}`", node.op()), node.module_path,
                "finish training passes before writing a .pt2 file");
  }
  const bool single = node.outputs().size() == 1;
  const json written = outputs(node);
  const bool list = !written.empty() && written[0].contains("as_tensors");
  return {
      {"target", target},
      {"inputs", inputs(node)},
      {"outputs", written},
      {"metadata", {{"nn_module_stack", module_stack(node.module_path)}}},
      {"is_hop_single_tensor_return", nullptr},
      {"name", single && !list ? names_.of(node.output()) : names_.fresh(base_name(node.op()))}};
}

json GraphWriter::nodes() {
  json nodes = json::array();
  for (const Node& next : model_.graph().nodes()) nodes.push_back(node(next));
  return nodes;
}

json GraphWriter::tensor_values() {
  json values = json::object();
  const auto add = [&](const Value* value, const std::string& name, bool requires_grad) {
    if (value->kind() != ValueKind::kTensor || !value->type.dtype || !value->type.sizes) return;
    values[name] = tensor_meta(*value->type.dtype, *value->type.sizes, requires_grad, symbols_);
  };
  for (const Value* input : model_.graph().inputs()) add(input, names_.of(input), false);
  for (const NamedTensor& tensor : model_.tensors()) {
    const Value* value = model_.graph().find(tensor.name);
    add(value, names_.of(value), tensor.tensor.requires_grad());
    for (const std::string& alias : tensor.aliases) {
      add(value, names_.of_alias(alias), tensor.tensor.requires_grad());
    }
  }
  for (const Node& node : model_.graph().nodes()) {
    for (const Value* output : node.outputs()) add(output, names_.of(output), false);
  }
  return values;
}

std::optional<SizeExpression> GraphWriter::derive(const Node& node) const {
  std::vector<SizeExpression> operands;
  for (const Argument& argument : node.arguments()) {
    if (argument.is_int()) {
      operands.push_back(SizeExpression::constant(argument.as<int64_t>()));
    } else if (const auto found = scalars_.find(argument.value()); found != scalars_.end()) {
      operands.push_back(found->second);
    }
  }
  if (node.op() == "aten::sym_size.int" && node.arguments()[1].is_int()) {
    const std::optional<std::vector<Dim>>& sizes = node.arguments()[0].value()->type.sizes;
    int64_t dim = node.arguments()[1].as<int64_t>();
    if (!sizes) return std::nullopt;
    if (dim < 0) dim += static_cast<int64_t>(sizes->size());
    if (dim < 0 || dim >= static_cast<int64_t>(sizes->size())) return std::nullopt;
    return FileSymbols::expression((*sizes)[static_cast<size_t>(dim)]);
  }
  if (operands.size() != node.arguments().size() || operands.empty()) return std::nullopt;
  const SizeExpression minus_one = SizeExpression::constant(-1);
  if (node.op() == "scalar::neg") return SizeExpression::function("Mul", {minus_one, operands[0]});
  if (node.op() == "scalar::sub" && operands.size() == 2) {
    return SizeExpression::function(
        "Add", {operands[0], SizeExpression::function("Mul", {minus_one, operands[1]})});
  }
  const auto function = sympy_functions().find(node.op());
  if (function == sympy_functions().end()) return std::nullopt;
  return SizeExpression::function(function->second, std::move(operands));
}

// Numbers computed from sizes, as functions of the inputs' symbols; one of its own where that
// fails.
void GraphWriter::derive_scalars() {
  const json known = metadata_.value("scalars", json::object());
  const auto give = [&](const Value* value, std::optional<SizeExpression> expression) {
    if (value->kind() == ValueKind::kTensor) return;
    const json text = known.value(value->name(), json());
    if (!expression && text.is_string())
      expression = parse_size_expression(text.get<std::string>());
    scalars_.insert_or_assign(
        value, expression ? std::move(*expression) : SizeExpression::symbol(value->name()));
  };
  for (const Value* input : model_.graph().inputs()) give(input, std::nullopt);
  for (const Node& node : model_.graph().nodes()) {
    if (node.outputs().size() != 1 || node.output()->kind() == ValueKind::kTensor) continue;
    give(node.output(), derive(node));
  }
}

json GraphWriter::scalar_values(ValueKind kind) {
  json values = json::object();
  for (const auto& [value, expression] : scalars_) {
    if (value->kind() != kind) continue;
    if (kind == ValueKind::kInt) {
      values[names_.of(value)] = symbols_.size(expression);
    } else {
      values[names_.of(value)] = {
          {"as_expr",
           {{"expr_str", print_sympy(symbols_.to_file(expression))}, {"hint", nullptr}}}};
    }
  }
  return values;
}

}  // namespace compress::pt2
