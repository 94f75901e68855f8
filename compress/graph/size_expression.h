// Arithmetic on symbolic sizes: `4*s77`, `(s0+1)//2`, and the same as Python's sympy spells it.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace compress {

/// A number, a symbol, or a function of expressions. Sums, products and powers are functions named
/// `Add`, `Mul` and `Pow`; the others bear sympy's and torch's names (`FloorDiv`, `Mod`, `Max`).
struct SizeExpression {
  enum class Kind { kNumber, kSymbol, kFunction };
  Kind kind = Kind::kNumber;
  int64_t number = 0;
  std::string name;  ///< of the symbol or function
  std::vector<SizeExpression> arguments;

  static SizeExpression constant(int64_t value) { return {Kind::kNumber, value, {}, {}}; }
  static SizeExpression symbol(std::string name) { return {Kind::kSymbol, 0, std::move(name), {}}; }
  static SizeExpression function(std::string name, std::vector<SizeExpression> arguments) {
    return {Kind::kFunction, 0, std::move(name), std::move(arguments)};
  }
  friend bool operator==(const SizeExpression&, const SizeExpression&) = default;
};

/// Reads both spellings: `4*s77` and `Mul(Integer(4), Symbol('s77', positive=True, integer=True))`.
/// Nothing if the text is neither.
std::optional<SizeExpression> parse_size_expression(std::string_view text);

/// `4*s77`, without spaces.
std::string print_readable(const SizeExpression& expression);

/// sympy's `srepr`: `Mul(Integer(4), Symbol('s77', positive=True, integer=True))`.
std::string print_sympy(const SizeExpression& expression);

/// The value when `size_of` knows every symbol; nothing for an unknown symbol or function, a
/// division by zero or an overflow.
std::optional<int64_t> evaluate(
    const SizeExpression& expression,
    const std::function<std::optional<int64_t>(const std::string&)>& size_of);

/// Calls `visit` with the name of every symbol.
void each_symbol(const SizeExpression& expression,
                 const std::function<void(const std::string&)>& visit);

}  // namespace compress
