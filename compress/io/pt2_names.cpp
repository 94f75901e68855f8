// Names and symbols of a program as Python wants them.

#include "compress/error.h"
#include "compress/io/pt2_graph_writer.h"
#include "compress/io/pt2_types.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace compress::pt2 {
namespace {

using nlohmann::json;

// The generated code of a loaded program would not compile with these.
constexpr std::array<std::string_view, 36> kKeywords = {
    "False", "None",     "True",  "and",    "as",   "assert", "async",  "await",    "break",
    "class", "continue", "def",   "del",    "elif", "else",   "except", "finally",  "for",
    "from",  "global",   "if",    "import", "in",   "is",     "lambda", "nonlocal", "not",
    "or",    "pass",     "raise", "return", "try",  "while",  "with",   "yield",    "self"};

std::string identifier(const std::string& name) {
  std::string result;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    result += byte < 128 && std::isalnum(byte) ? c : '_';
  }
  if (result.empty() || std::isdigit(static_cast<unsigned char>(result[0]))) result.insert(0, "_");
  if (std::find(kKeywords.begin(), kKeywords.end(), result) != kKeywords.end()) result += "_";
  return result;
}

const char* prefix_of(TensorRole role) {
  if (role == TensorRole::kParameter) return "p_";
  return role == TensorRole::kBuffer ? "b_" : "c_";
}

// torch tells a size (s12) and a number known only at run time (u3) by their first letter.
bool is_torch_symbol(const std::string& name) {
  return name.size() >= 2 && (name[0] == 's' || name[0] == 'u') &&
         std::all_of(name.begin() + 1, name.end(),
                     [](char c) { return std::isdigit(static_cast<unsigned char>(c)); });
}

// The size that a symbol without an example stands in with: torch treats 0 and 1 as special.
constexpr int64_t kUsualSize = 2;

}  // namespace

FileNames::FileNames(const Model& model) {
  const Graph& graph = model.graph();
  for (const Value* input : graph.inputs()) names_[input] = fresh(identifier(input->name()));
  for (const Node& node : graph.nodes()) {
    for (const Value* output : node.outputs()) names_[output] = fresh(identifier(output->name()));
  }
  for (const NamedTensor& tensor : model.tensors()) {
    const std::string prefix = prefix_of(tensor.role);
    names_[graph.find(tensor.name)] = fresh(prefix + identifier(tensor.name));
    for (const std::string& alias : tensor.aliases) {
      aliases_[alias] = fresh(prefix + identifier(alias));
    }
  }
}

std::string FileNames::fresh(const std::string& wish) {
  std::string name = wish;
  for (int suffix = 1; !taken_.insert(name).second; ++suffix) {
    name = fmt::format("{}_{}", wish, suffix);
  }
  return name;
}

std::optional<SizeExpression> FileSymbols::expression(const Dim& dim) {
  if (!dim.is_symbolic()) return SizeExpression::constant(dim.size);
  return parse_size_expression(dim.symbol);
}

FileSymbols::FileSymbols(const Model& model) {
  const auto note = [&](const Value* value) {
    if (!value->type.sizes) return;
    for (const Dim& dim : *value->type.sizes) {
      const std::optional<SizeExpression> parsed = expression(dim);
      if (!parsed || !dim.is_symbolic()) continue;
      each_symbol(*parsed, [&](const std::string& symbol) {
        if (is_torch_symbol(symbol)) taken_.insert(symbol);
      });
      if (parsed->kind == SizeExpression::Kind::kSymbol && dim.size > 0) {
        examples_.try_emplace(parsed->name, dim.size);
      }
    }
  };
  for (const Value* input : model.graph().inputs()) note(input);
  for (const Node& node : model.graph().nodes()) {
    for (const Value* output : node.outputs()) note(output);
  }
}

const std::string& FileSymbols::name_in_file(const std::string& symbol) {
  const auto known = used_.find(symbol);
  if (known != used_.end()) return known->second;
  std::string name = symbol;
  if (!is_torch_symbol(symbol)) {
    int number = 0;
    do {
      name = fmt::format("s{}", number++);
    } while (!taken_.insert(name).second);
    renamed_[symbol] = name;
  }
  return used_[symbol] = name;
}

SizeExpression FileSymbols::to_file(const SizeExpression& expression) {
  SizeExpression result = expression;
  if (result.kind == SizeExpression::Kind::kSymbol) result.name = name_in_file(expression.name);
  for (SizeExpression& argument : result.arguments) argument = to_file(argument);
  return result;
}

json FileSymbols::size(const SizeExpression& expression) {
  if (expression.kind == SizeExpression::Kind::kNumber) return {{"as_int", expression.number}};
  json symbolic = {{"expr_str", print_sympy(to_file(expression))}};
  const std::optional<int64_t> example =
      evaluate(expression, [&](const std::string& symbol) -> std::optional<int64_t> {
        const auto found = examples_.find(symbol);
        return found == examples_.end() ? kUsualSize : found->second;
      });
  if (example) symbolic["hint"] = {{"as_int", *example}};
  return {{"as_expr", std::move(symbolic)}};
}

json FileSymbols::size(const Dim& dim) {
  // What no expression describes is written as the number that it was; Python only shows it.
  const std::optional<SizeExpression> parsed = expression(dim);
  return size(parsed ? *parsed : SizeExpression::constant(dim.size));
}

json tensor_meta(c10::ScalarType dtype, const std::vector<Dim>& sizes, bool requires_grad,
                 FileSymbols& symbols) {
  json size_list = json::array();
  json strides = json::array();
  SizeExpression stride = SizeExpression::constant(1);
  for (size_t i = sizes.size(); i-- > 0;) {
    strides.insert(strides.begin(), symbols.size(stride));
    const SizeExpression size =
        FileSymbols::expression(sizes[i]).value_or(SizeExpression::constant(sizes[i].size));
    if (size.kind == SizeExpression::Kind::kNumber &&
        stride.kind == SizeExpression::Kind::kNumber) {
      stride = SizeExpression::constant(stride.number * std::max<int64_t>(size.number, 1));
    } else if (stride == SizeExpression::constant(1)) {
      stride = size;
    } else {
      stride = SizeExpression::function("Mul", {stride, size});
    }
  }
  for (const Dim& dim : sizes) size_list.push_back(symbols.size(dim));
  return {
      {"dtype", dtype_number(dtype)},          {"sizes", std::move(size_list)},
      {"requires_grad", requires_grad},        {"device", {{"type", "cpu"}, {"index", nullptr}}},
      {"strides", std::move(strides)},         {"storage_offset", {{"as_int", 0}}},
      {"layout", layout_number(c10::kStrided)}};
}

}  // namespace compress::pt2
