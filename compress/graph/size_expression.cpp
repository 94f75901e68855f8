// Arithmetic on symbolic sizes: `4*s77`, `(s0+1)//2`, and the same as Python's sympy spells it.

#include "compress/graph/size_expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

namespace compress {
namespace {

using Kind = SizeExpression::Kind;
using Parsed = std::optional<SizeExpression>;

// Files nest a few levels; this keeps hostile text from exhausting the stack.
constexpr int kDeepest = 64;

// A recursive-descent parser of Python's arithmetic with calls; flags such as `positive=True` and
// the quotes of Symbol('s0') are the only things it takes apart and drops.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Parsed whole() {
    Parsed result = sum();
    skip_space();
    return position_ == text_.size() ? result : std::nullopt;
  }

 private:
  void skip_space() {
    while (position_ < text_.size() && text_[position_] == ' ') ++position_;
  }
  bool take(std::string_view token) {
    skip_space();
    if (text_.substr(position_, token.size()) != token) return false;
    position_ += token.size();
    return true;
  }
  bool next_is(std::string_view token) {
    skip_space();
    return text_.substr(position_, token.size()) == token;
  }

  Parsed sum() {
    if (++depth_ > kDeepest) return std::nullopt;
    Parsed left = product();
    std::vector<SizeExpression> terms;
    while (left) {
      const bool plus = take("+");
      if (!plus && !take("-")) break;
      Parsed right = product();
      if (!right) return std::nullopt;
      if (terms.empty()) terms.push_back(std::move(*left));
      terms.push_back(plus ? std::move(*right) : negated(std::move(*right)));
    }
    --depth_;
    if (!left || terms.empty()) return left;
    return SizeExpression::function("Add", std::move(terms));
  }

  static SizeExpression negated(SizeExpression expression) {
    if (expression.kind == Kind::kNumber) {
      return SizeExpression::constant(-expression.number);
    }
    return SizeExpression::function("Mul", {SizeExpression::constant(-1), std::move(expression)});
  }

  Parsed product() {
    Parsed left = unary();
    while (left) {
      if (take("//")) {
        left = binary("FloorDiv", std::move(left), unary());
      } else if (next_is("**")) {
        break;
      } else if (take("*")) {
        left = multiplied(std::move(left), unary());
      } else if (take("%")) {
        left = binary("Mod", std::move(left), unary());
      } else if (take("/")) {
        left = binary("IntTrueDiv", std::move(left), unary());
      } else {
        break;
      }
    }
    return left;
  }

  static Parsed binary(const char* name, Parsed left, Parsed right) {
    if (!left || !right) return std::nullopt;
    return SizeExpression::function(name, {std::move(*left), std::move(*right)});
  }

  static Parsed multiplied(Parsed left, Parsed right) {
    if (!left || !right) return std::nullopt;
    if (left->kind == Kind::kFunction && left->name == "Mul") {
      left->arguments.push_back(std::move(*right));
      return left;
    }
    return binary("Mul", std::move(left), std::move(right));
  }

  Parsed unary() {
    if (++depth_ > kDeepest) return std::nullopt;
    Parsed result;
    if (take("-")) {
      Parsed inner = unary();
      if (inner) result = negated(std::move(*inner));
    } else {
      result = power();
    }
    --depth_;
    return result;
  }

  Parsed power() {
    Parsed base = atom();
    if (base && take("**")) return binary("Pow", std::move(base), unary());
    return base;
  }

  Parsed atom() {
    skip_space();
    if (take("(")) {
      Parsed inner = sum();
      return take(")") ? inner : std::nullopt;
    }
    if (position_ >= text_.size()) return std::nullopt;
    if (std::isdigit(static_cast<unsigned char>(text_[position_]))) return integer();
    const std::string name = word();
    if (name.empty()) return std::nullopt;
    if (!take("(")) return SizeExpression::symbol(name);
    return call(name.substr(name.rfind('.') + 1));  // torch.utils._sympy.functions.FloorDiv
  }

  Parsed integer() {
    int64_t value = 0;
    const char* end = text_.data() + text_.size();
    const auto [stop, error] = std::from_chars(text_.data() + position_, end, value);
    if (error != std::errc()) return std::nullopt;
    position_ = static_cast<size_t>(stop - text_.data());
    if (position_ < text_.size() && text_[position_] == '.') return std::nullopt;
    return SizeExpression::constant(value);
  }

  std::string word() {
    const size_t start = position_;
    while (position_ < text_.size()) {
      const auto c = static_cast<unsigned char>(text_[position_]);
      if (!std::isalnum(c) && c != '_' && c != '.') break;
      ++position_;
    }
    return std::string(text_.substr(start, position_ - start));
  }

  Parsed call(const std::string& name) {
    if (name == "Symbol") return symbol();
    std::vector<SizeExpression> arguments;
    if (!take(")")) {
      do {
        Parsed argument = sum();
        if (!argument) return std::nullopt;
        arguments.push_back(std::move(*argument));
      } while (take(","));
      if (!take(")")) return std::nullopt;
    }
    if (name == "Integer") return arguments.size() == 1 ? Parsed(arguments[0]) : std::nullopt;
    return SizeExpression::function(name, std::move(arguments));
  }

  Parsed symbol() {
    const bool single = take("'");
    if (!single && !take("\"")) return std::nullopt;
    const std::string name = word();
    if (name.empty() || !take(single ? "'" : "\"")) return std::nullopt;
    while (take(",")) {
      skip_space();
      if (word().empty() || !take("=")) return std::nullopt;
      skip_space();
      if (word().empty()) return std::nullopt;
    }
    return take(")") ? Parsed(SizeExpression::symbol(name)) : std::nullopt;
  }

  std::string_view text_;
  size_t position_ = 0;
  int depth_ = 0;
};

// How tightly the printed form of an expression binds.
int precedence(const SizeExpression& expression) {
  if (expression.kind == Kind::kNumber) return expression.number < 0 ? 1 : 4;
  if (expression.kind == Kind::kSymbol) return 4;
  const size_t count = expression.arguments.size();
  if (expression.name == "Add" && count >= 2) return 1;
  if (expression.name == "Mul" && count >= 2) return 2;
  if ((expression.name == "FloorDiv" || expression.name == "Mod") && count == 2) return 2;
  if (expression.name == "Pow" && count == 2) return 3;
  return 4;
}

std::string in_parentheses(const SizeExpression& expression, int weakest) {
  const std::string text = print_readable(expression);
  return precedence(expression) < weakest ? fmt::format("({})", text) : text;
}

std::string join(const SizeExpression& expression, const char* separator, int weakest) {
  std::string text;
  for (size_t i = 0; i < expression.arguments.size(); ++i) {
    if (i > 0) text += separator;
    text += in_parentheses(expression.arguments[i], i == 0 ? weakest : weakest + 1);
  }
  return text;
}

// `a-b` rather than `a+-1*b`.
std::string print_sum(const SizeExpression& expression) {
  std::string text = in_parentheses(expression.arguments[0], 1);
  for (size_t i = 1; i < expression.arguments.size(); ++i) {
    const SizeExpression& term = expression.arguments[i];
    if (term.kind == Kind::kNumber && term.number < 0) {
      text += fmt::format("{}", term.number);
      continue;
    }
    const bool negative = term.name == "Mul" && term.arguments.size() == 2 &&
                          term.arguments[0].kind == Kind::kNumber && term.arguments[0].number == -1;
    text += negative ? '-' : '+';
    text += negative ? in_parentheses(term.arguments[1], 3) : in_parentheses(term, 2);
  }
  return text;
}

std::optional<int64_t> apply_function(const std::string& name, const std::vector<int64_t>& values) {
  const auto fold = [&](auto combine) -> std::optional<int64_t> {
    if (values.empty()) return std::nullopt;
    int64_t result = values[0];
    for (size_t i = 1; i < values.size(); ++i) {
      if (combine(result, values[i], &result)) return std::nullopt;
    }
    return result;
  };
  if (name == "Add") {
    return fold([](int64_t a, int64_t b, int64_t* r) { return __builtin_add_overflow(a, b, r); });
  }
  if (name == "Mul") {
    return fold([](int64_t a, int64_t b, int64_t* r) { return __builtin_mul_overflow(a, b, r); });
  }
  if (name == "Max")
    return fold([](int64_t a, int64_t b, int64_t* r) { return *r = std::max(a, b), false; });
  if (name == "Min")
    return fold([](int64_t a, int64_t b, int64_t* r) { return *r = std::min(a, b), false; });
  if (values.size() != 2) return std::nullopt;
  const auto [a, b] = std::pair(values[0], values[1]);
  if (name == "Pow" || name == "PowByNatural") {
    int64_t result = 1;
    if (b < 0 || b > 62) return std::nullopt;
    for (int64_t i = 0; i < b; ++i) {
      if (__builtin_mul_overflow(result, a, &result)) return std::nullopt;
    }
    return result;
  }
  if (b == 0 || b == -1) return std::nullopt;
  const int64_t floor = a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
  if (name == "FloorDiv") return floor;
  if (name == "CleanDiv" && a % b == 0) return floor;
  if (name == "CeilDiv") return floor + (a % b != 0);
  if (name == "Mod" || name == "PythonMod") return a - floor * b;
  return std::nullopt;
}

}  // namespace

std::optional<SizeExpression> parse_size_expression(std::string_view text) {
  return Parser(text).whole();
}

std::string print_readable(const SizeExpression& expression) {
  if (expression.kind == Kind::kNumber) return fmt::format("{}", expression.number);
  if (expression.kind == Kind::kSymbol) return expression.name;
  const size_t count = expression.arguments.size();
  if (expression.name == "Add" && count >= 2) return print_sum(expression);
  if (expression.name == "Mul" && count >= 2) return join(expression, "*", 2);
  if (expression.name == "FloorDiv" && count == 2) return join(expression, "//", 2);
  if (expression.name == "Mod" && count == 2) return join(expression, "%", 2);
  if (expression.name == "Pow" && count == 2) {
    return in_parentheses(expression.arguments[0], 4) + "**" +
           in_parentheses(expression.arguments[1], 4);
  }
  std::string text = expression.name + "(";
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) text += ",";
    text += print_readable(expression.arguments[i]);
  }
  return text + ")";
}

std::string print_sympy(const SizeExpression& expression) {
  if (expression.kind == Kind::kNumber) return fmt::format("Integer({})", expression.number);
  if (expression.kind == Kind::kSymbol) {
    // Sizes known only at run time (u0) carry no sign; torch compares symbols with their flags.
    const bool unbacked = expression.name.starts_with("u");
    return fmt::format("Symbol('{}'{}, integer=True)", expression.name,
                       unbacked ? "" : ", positive=True");
  }
  // srepr of Rational and of functions alike: the name and the arguments.
  std::string text = expression.name + "(";
  for (size_t i = 0; i < expression.arguments.size(); ++i) {
    if (i > 0) text += ", ";
    text += print_sympy(expression.arguments[i]);
  }
  return text + ")";
}

std::optional<int64_t> evaluate(
    const SizeExpression& expression,
    const std::function<std::optional<int64_t>(const std::string&)>& size_of) {
  if (expression.kind == Kind::kNumber) return expression.number;
  if (expression.kind == Kind::kSymbol) return size_of(expression.name);
  std::vector<int64_t> values;
  for (const SizeExpression& argument : expression.arguments) {
    const std::optional<int64_t> value = evaluate(argument, size_of);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return apply_function(expression.name, values);
}

void each_symbol(const SizeExpression& expression,
                 const std::function<void(const std::string&)>& visit) {
  if (expression.kind == Kind::kSymbol) visit(expression.name);
  for (const SizeExpression& argument : expression.arguments) each_symbol(argument, visit);
}

}  // namespace compress
