// Reads the text form of a model.

#include "compress/graph/dtype_names.h"
#include "compress/graph/lexer.h"
#include "compress/graph/schema.h"
#include "compress/graph/tensor_text.h"
#include "compress/graph/text.h"

#include <ATen/core/function_schema.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>

namespace compress {
namespace {

using text::Lexer;
using text::Token;

constexpr size_t kMaxListDepth = 32;  // ATen's deepest lists have two levels
constexpr size_t kMaxRank = 64;       // LibTorch's own limit for TensorIterator

struct ValueType {
  ValueKind kind = ValueKind::kTensor;
  TensorType tensor;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : lexer_(text) {}

  Model parse() {
    while (lexer_.token().kind != Token::Kind::kEnd) {
      if (lexer_.token().kind != Token::Kind::kNewline) statement();
      if (lexer_.token().kind == Token::Kind::kEnd) break;
      if (lexer_.token().kind != Token::Kind::kNewline) lexer_.fail_expected("the end of the line");
      lexer_.advance();
    }
    Graph& graph = model_.graph();
    if (!has_return_ && graph.inputs().empty() && graph.nodes().empty()) {
      for (Value* value : graph.named_tensors()) returns_.push_back({value->name(), value});
    }
    graph.set_outputs(std::move(returns_));
    graph.set_updates(std::move(updates_));
    return std::move(model_);
  }

 private:
  void statement() {
    const bool is_keyword =
        lexer_.token().kind == Token::Kind::kWord && lexer_.following().is_name();
    if (is_keyword) {
      const Token keyword = lexer_.take();
      if (keyword.text == "input") return input();
      if (keyword.text == "parameter") return named_tensor(TensorRole::kParameter, new_name());
      if (keyword.text == "buffer") return named_tensor(TensorRole::kBuffer, new_name());
      if (keyword.text == "constant") return named_tensor(TensorRole::kConstant, new_name());
      if (keyword.text == "return") {
        has_return_ = true;
        return binding(returns_);
      }
      if (keyword.text == "update") return binding(updates_);
      if (lexer_.token().is_word("alias")) {
        check_is_free(keyword);
        return named_tensor(TensorRole::kParameter, keyword.text);
      }
      lexer_.fail(
          keyword.offset,
          fmt::format("found `{:.40}` in front of a name, expected input, parameter, buffer, "
                      "constant, return or update",
                      keyword.text));
    }
    if (lexer_.token().is_name() && lexer_.following().is_symbol('(')) return call({});
    std::vector<std::string> names{new_name()};
    if (lexer_.token().is_symbol(':')) return named_tensor(TensorRole::kParameter, names[0]);
    while (lexer_.token().is_symbol(',')) {
      lexer_.advance();
      const size_t offset = lexer_.token().offset;
      names.push_back(new_name());
      if (std::count(names.begin(), names.end(), names.back()) > 1) {
        lexer_.fail(offset, fmt::format("the name `{}` is given twice", names.back()));
      }
    }
    if (!lexer_.token().is_symbol('=')) lexer_.fail_expected("`=`, `,` or `:` after a name");
    lexer_.advance();
    call(names);
  }

  std::string any_name(std::string_view expected) {
    if (!lexer_.token().is_name()) lexer_.fail_expected(expected);
    if (lexer_.token().text.empty()) lexer_.fail(lexer_.token().offset, "found an empty name");
    return lexer_.take().text;
  }

  std::string new_name() {
    const Token token = lexer_.token();
    std::string name = any_name("a name");
    check_is_free(token);
    return name;
  }

  void check_is_free(const Token& token) {
    if (model_.graph().find(token.text) != nullptr || model_.find_tensor(token.text) != nullptr) {
      lexer_.fail(token.offset, fmt::format("the name `{}` is defined above already", token.text));
    }
  }

  void expect(char symbol, std::string_view expected) {
    if (!lexer_.token().is_symbol(symbol)) lexer_.fail_expected(expected);
    lexer_.advance();
  }

  void input() {
    const std::string name = new_name();
    expect(':', "`:` and a type");
    ValueType type = value_type();
    model_.graph().add_input(name, std::move(type.tensor), type.kind);
  }

  void named_tensor(TensorRole role, const std::string& name) {
    std::vector<Token> aliases;
    if (lexer_.token().is_word("alias")) {
      do {
        lexer_.advance();
        aliases.push_back(lexer_.token());
        new_name();
      } while (lexer_.token().is_symbol(','));
    }
    expect(':', "`:` and a type");
    const size_t type_offset = lexer_.token().offset;
    ValueType type = value_type();
    if (type.kind != ValueKind::kTensor) {
      lexer_.fail(type_offset,
                  "found the type of a number, expected a tensor's such as `f32[2,3]`");
    }
    at::Tensor tensor;
    std::string digest;
    if (lexer_.token().is_symbol('=')) {
      lexer_.advance();
      if (lexer_.token().kind == Token::Kind::kDigest) {
        digest = lexer_.take().text;
      } else {
        tensor = elements(type.tensor, type_offset);
      }
    }
    Value* value = model_.add_tensor(name, tensor, role);
    value->type = std::move(type.tensor);
    model_.find_tensor(name)->digest = std::move(digest);
    for (const Token& alias : aliases) {
      check_is_free(alias);
      model_.add_alias(name, alias.text);
    }
  }

  at::Tensor elements(const TensorType& type, size_t offset) {
    std::vector<int64_t> sizes;
    const auto is_symbolic = [](const Dim& dim) { return dim.is_symbolic(); };
    if (!type.dtype || !type.sizes ||
        std::any_of(type.sizes->begin(), type.sizes->end(), is_symbolic)) {
      lexer_.fail(offset, "elements need a dtype and sizes that are numbers");
    }
    for (const Dim& dim : *type.sizes) sizes.push_back(dim.size);
    return text::read_elements(lexer_, *type.dtype, sizes);
  }

  void binding(std::vector<Output>& bindings) {
    const size_t offset = lexer_.token().offset;
    std::string name = any_name("a name");
    if (!bound_.emplace(&bindings == &returns_, name).second) {
      lexer_.fail(offset, fmt::format("`{}` is given twice", name));
    }
    expect('=', "`=` and a value");
    bindings.push_back({std::move(name), argument(0)});
  }

  void call(const std::vector<std::string>& names) {
    const Token op = lexer_.token();
    if (!op.is_name()) lexer_.fail_expected("an operator such as `aten::relu`");
    lexer_.advance();
    if (!lexer_.token().is_symbol('(')) lexer_.fail_expected("`(` after an operator");
    const c10::FunctionSchema* schema = find_schema(op.text);
    if (schema == nullptr && op.text.find("::") == std::string::npos) {
      lexer_.fail(
          op.offset,
          fmt::format("found `{:.40}`, expected an operator such as `aten::relu`", op.text));
    }
    if (schema == nullptr && op.text.starts_with("aten::")) {
      lexer_.fail(op.offset, fmt::format("this LibTorch has no operator `{:.80}`", op.text));
    }
    std::vector<Argument> arguments = call_arguments(op, schema);
    std::vector<ValueType> types(names.size());
    if (lexer_.token().is_symbol(':')) {
      read_result_types(types);
    } else {
      infer_result_kinds(op, schema, arguments, types);
    }
    std::vector<std::pair<std::string, ValueKind>> outputs;
    for (size_t i = 0; i < names.size(); ++i) outputs.emplace_back(names[i], types[i].kind);
    Node* node = model_.graph().insert_raw(nullptr, op.text, std::move(arguments), outputs);
    for (size_t i = 0; i < names.size(); ++i) {
      node->outputs()[i]->type = std::move(types[i].tensor);
    }
    if (lexer_.token().is_symbol('@')) {
      lexer_.advance();
      node->module_path = any_name("a module path");
    }
  }

  std::vector<Argument> call_arguments(const Token& op, const c10::FunctionSchema* schema) {
    std::vector<Argument> positional;
    std::map<std::string, Argument> keywords;
    lexer_.enter();
    lexer_.advance();
    while (!lexer_.token().is_symbol(')')) {
      if (!positional.empty() || !keywords.empty()) expect(',', "`,` or `)`");
      const Token first = lexer_.token();
      if (first.is_name() && lexer_.following().is_symbol('=')) {
        if (schema == nullptr) lexer_.fail(first.offset, "this operator has no argument names");
        lexer_.advance();
        lexer_.advance();
        if (!keywords.emplace(first.text, argument(0)).second) {
          lexer_.fail(first.offset, fmt::format("argument `{}` is given twice", first.text));
        }
      } else if (!keywords.empty()) {
        lexer_.fail_expected("`name=value` after an argument with a name");
      } else {
        positional.push_back(argument(0));
      }
    }
    lexer_.leave();
    lexer_.advance();
    if (schema == nullptr) return positional;
    try {
      return complete_arguments(*schema, std::move(positional), keywords);
    } catch (const Error& error) {
      lexer_.fail(op.offset, error.message(), error.hint());
    }
  }

  void read_result_types(std::vector<ValueType>& types) {
    for (size_t i = 0; i < types.size(); ++i) {
      lexer_.advance();  // `:` or `,`
      types[i] = value_type();
      if (i + 1 < types.size() && !lexer_.token().is_symbol(',')) {
        lexer_.fail_expected(fmt::format("`,` and the type of result {}", i + 2));
      }
    }
  }

  void infer_result_kinds(const Token& op, const c10::FunctionSchema* schema,
                          const std::vector<Argument>& arguments, std::vector<ValueType>& types) {
    if (schema == nullptr) {
      if (op.text.starts_with("scalar::")) {
        for (ValueType& type : types) type.kind = scalar_kind(op.text, arguments);
      }
      return;
    }
    const size_t fixed = schema->returns().size();
    const size_t list_size = types.size() + 1 >= fixed ? types.size() + 1 - fixed : 0;
    const std::vector<ValueKind> kinds = return_kinds(*schema, list_size);
    if (kinds.size() != types.size()) {
      lexer_.fail(op.offset, fmt::format("found {} names for the {} results of {}", types.size(),
                                         kinds.size(), op.text));
    }
    for (size_t i = 0; i < kinds.size(); ++i) types[i].kind = kinds[i];
  }

  // Python's rules.
  static ValueKind scalar_kind(std::string_view op, const std::vector<Argument>& arguments) {
    constexpr std::array<std::string_view, 9> kBool = {"eq", "ne", "lt",  "le", "gt",
                                                       "ge", "or", "and", "not"};
    constexpr std::array<std::string_view, 3> kFloat = {"truediv", "sqrt", "float"};
    constexpr std::array<std::string_view, 5> kInt = {"int", "floor", "ceil", "round", "trunc"};
    op.remove_prefix(std::string_view("scalar::").size());
    const auto among = [&](const auto& names) {
      return std::find(names.begin(), names.end(), op) != names.end();
    };
    if (among(kBool)) return ValueKind::kBool;
    if (among(kFloat)) return ValueKind::kFloat;
    if (among(kInt)) return ValueKind::kInt;
    for (const Argument& argument : arguments) {
      const Value* value = argument.value();
      const bool is_float = std::holds_alternative<double>(argument.data()) ||
                            (value != nullptr && value->kind() == ValueKind::kFloat);
      if (is_float) return ValueKind::kFloat;
    }
    return ValueKind::kInt;
  }

  Argument argument(size_t depth) {
    const Token& token = lexer_.token();
    if (token.kind == Token::Kind::kString) return Argument(lexer_.take().text);
    if (token.is_symbol('[')) return list(depth);
    if (!token.is_name()) lexer_.fail_expected("a value or a constant");
    if (token.kind == Token::Kind::kWord) {
      if (text::is_number(token.text)) {
        const std::optional<Argument> number = text::read_number(token.text);
        if (!number) lexer_.fail_expected("a number of at most 64 bits");
        lexer_.advance();
        return *number;
      }
      if (const std::optional<Argument> constant = text::find_constant(token.text)) {
        lexer_.advance();
        return *constant;
      }
    }
    Value* value = model_.graph().find(token.text);
    if (value == nullptr) fail_unknown(token);
    lexer_.advance();
    return Argument(value);
  }

  Argument list(size_t depth) {
    if (depth == kMaxListDepth) lexer_.fail(lexer_.token().offset, "lists are nested too deeply");
    Argument::List elements;
    lexer_.enter();
    lexer_.advance();
    while (!lexer_.token().is_symbol(']')) {
      if (!elements.empty()) expect(',', "`,` or `]`");
      elements.push_back(argument(depth + 1));
    }
    lexer_.leave();
    lexer_.advance();
    return Argument(std::move(elements));
  }

  [[noreturn]] void fail_unknown(const Token& token) {
    constexpr size_t kMaxLength = 200, kMaxCandidates = 10000;  // the hint must not take seconds
    std::vector<std::string> names;
    const auto add = [&](const Value* value) {
      if (names.size() < kMaxCandidates && value->name().size() < kMaxLength) {
        names.push_back(value->name());
      }
    };
    const Graph& graph = model_.graph();
    for (const Value* value : graph.inputs()) add(value);
    for (const Value* value : graph.named_tensors()) add(value);
    for (const Node& node : graph.nodes()) {
      for (const Value* value : node.outputs()) add(value);
    }
    const bool is_short = token.text.size() < kMaxLength;
    lexer_.fail(
        token.offset,
        fmt::format("found `{:.80}`, expected a constant or a value defined above", token.text),
        is_short ? did_you_mean(token.text, names) : std::string());
  }

  ValueType value_type() {
    const Token token = lexer_.token();
    ValueType type;
    if (token.is_symbol('?')) {
      lexer_.advance();
      if (lexer_.token().is_symbol('[')) type.tensor.sizes = sizes();
      return type;
    }
    if (token.kind != Token::Kind::kWord)
      lexer_.fail_expected("a type such as `f32[2,3]` or `int`");
    type.tensor.dtype = find_dtype(token.text);
    lexer_.advance();
    if (!lexer_.token().is_symbol('[')) {
      type.tensor.dtype.reset();
      if (token.text == "int") {
        type.kind = ValueKind::kInt;
      } else if (token.text == "float") {
        type.kind = ValueKind::kFloat;
      } else if (token.text == "bool") {
        type.kind = ValueKind::kBool;
      } else {
        lexer_.fail(token.offset, fmt::format("found `{:.40}`, expected a type such as `f32[2,3]` "
                                              "or `int`",
                                              token.text));
      }
      return type;
    }
    if (!type.tensor.dtype) {
      lexer_.fail(
          token.offset,
          fmt::format("found `{:.40}`, expected a dtype such as f32, i64 or bool", token.text));
    }
    type.tensor.sizes = sizes();
    return type;
  }

  std::optional<std::vector<Dim>> sizes() {
    const size_t offset = lexer_.token().offset;
    const std::vector<std::string_view> pieces = lexer_.take_dims();
    if (pieces.size() == 1 && pieces[0] == "...") return std::nullopt;
    if (pieces.size() > kMaxRank) {
      lexer_.fail(offset,
                  fmt::format("found {} dimensions, expected at most {}", pieces.size(), kMaxRank));
    }
    std::vector<Dim> dims;
    int64_t elements = 1;
    for (const std::string_view piece : pieces) {
      int64_t size = 0;
      const auto [stop, error] = std::from_chars(piece.data(), piece.data() + piece.size(), size);
      const bool is_whole = stop == piece.data() + piece.size();
      if (error == std::errc::result_out_of_range || (is_whole && size < 0) || piece.empty()) {
        lexer_.fail(offset, fmt::format("found the size `{:.40}`, expected a number from 0 up or a "
                                        "symbol",
                                        piece));
      }
      if (error == std::errc() && is_whole) {
        dims.emplace_back(size);
        if (__builtin_mul_overflow(elements, std::max<int64_t>(size, 1), &elements)) {
          lexer_.fail(offset, "found sizes whose product does not fit 64 bits");
        }
      } else {
        dims.emplace_back(std::string(piece), 0);
      }
    }
    return dims;
  }

  Lexer lexer_;
  Model model_;
  std::vector<Output> returns_, updates_;
  std::set<std::pair<bool, std::string>> bound_;
  bool has_return_ = false;
};

}  // namespace

Model parse_model(std::string_view text) { return Parser(text).parse(); }

}  // namespace compress
