// Arithmetic on sizes: the `scalar::` operators of a graph.

#include "compress/graph/scalar_ops.h"

#include "compress/error.h"

#include <ATen/core/ivalue.h>

#include <fmt/format.h>

#include <cmath>
#include <map>

namespace compress {
namespace {

using c10::IValue;

double number(const IValue& value) {
  if (value.isInt()) return static_cast<double>(value.toInt());
  if (value.isBool()) return value.toBool() ? 1.0 : 0.0;
  return value.toDouble();
}
bool truth(const IValue& value) { return number(value) != 0.0; }
bool integral(const IValue& value) { return value.isInt() || value.isBool(); }
int64_t integer(const IValue& value) { return value.isBool() ? value.toBool() : value.toInt(); }

int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return quotient - ((a % b != 0) && ((a < 0) != (b < 0)));
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (; exponent > 0; --exponent) result *= base;
  return result;
}

using Unary = IValue (*)(const IValue&);
const std::map<std::string, Unary>& unary_ops() {
  static const std::map<std::string, Unary> ops = {
      {"scalar::neg",
       [](const IValue& a) { return integral(a) ? IValue(-integer(a)) : IValue(-number(a)); }},
      {"scalar::not", [](const IValue& a) { return IValue(!truth(a)); }},
      {"scalar::abs",
       [](const IValue& a) {
         return integral(a) ? IValue(std::abs(integer(a))) : IValue(std::abs(number(a)));
       }},
      {"scalar::sqrt", [](const IValue& a) { return IValue(std::sqrt(number(a))); }},
      {"scalar::ceil",
       [](const IValue& a) { return IValue(static_cast<int64_t>(std::ceil(number(a)))); }},
      {"scalar::floor",
       [](const IValue& a) { return IValue(static_cast<int64_t>(std::floor(number(a)))); }},
      {"scalar::trunc",
       [](const IValue& a) { return IValue(static_cast<int64_t>(std::trunc(number(a)))); }},
      {"scalar::round",
       [](const IValue& a) { return IValue(static_cast<int64_t>(std::nearbyint(number(a)))); }},
      {"scalar::int", [](const IValue& a) { return IValue(static_cast<int64_t>(number(a))); }},
      {"scalar::float", [](const IValue& a) { return IValue(number(a)); }},
  };
  return ops;
}

IValue divide(const IValue& a, const IValue& b, bool floor) {
  if (number(b) == 0.0)
    throw Error(ErrorCode::kRunFailed, "division by zero in the arithmetic on sizes");
  if (!floor) return number(a) / number(b);
  if (integral(a) && integral(b)) return floor_divide(integer(a), integer(b));
  return std::floor(number(a) / number(b));
}

IValue modulo(const IValue& a, const IValue& b) {
  const IValue quotient = divide(a, b, true);
  if (integral(a) && integral(b)) return integer(a) - quotient.toInt() * integer(b);
  return number(a) - quotient.toDouble() * number(b);
}

// Applies `f` to integers when both are, else to doubles.
template <class F>
IValue arithmetic(const IValue& a, const IValue& b, F f) {
  if (integral(a) && integral(b)) return IValue(f(integer(a), integer(b)));
  return IValue(f(number(a), number(b)));
}

using Binary = IValue (*)(const IValue&, const IValue&);
const std::map<std::string, Binary>& binary_ops() {
  using V = const IValue&;
  static const std::map<std::string, Binary> ops = {
      {"scalar::add",
       [](V a, V b) { return arithmetic(a, b, [](auto x, auto y) { return x + y; }); }},
      {"scalar::sub",
       [](V a, V b) { return arithmetic(a, b, [](auto x, auto y) { return x - y; }); }},
      {"scalar::mul",
       [](V a, V b) { return arithmetic(a, b, [](auto x, auto y) { return x * y; }); }},
      {"scalar::max",
       [](V a, V b) { return arithmetic(a, b, [](auto x, auto y) { return x > y ? x : y; }); }},
      {"scalar::min",
       [](V a, V b) { return arithmetic(a, b, [](auto x, auto y) { return x < y ? x : y; }); }},
      {"scalar::truediv", [](V a, V b) { return divide(a, b, false); }},
      {"scalar::floordiv", [](V a, V b) { return divide(a, b, true); }},
      {"scalar::mod", [](V a, V b) { return modulo(a, b); }},
      {"scalar::pow",
       [](V a, V b) {
         if (integral(a) && integral(b) && integer(b) >= 0)
           return IValue(power(integer(a), integer(b)));
         return IValue(std::pow(number(a), number(b)));
       }},
      {"scalar::eq", [](V a, V b) { return IValue(number(a) == number(b)); }},
      {"scalar::ne", [](V a, V b) { return IValue(number(a) != number(b)); }},
      {"scalar::lt", [](V a, V b) { return IValue(number(a) < number(b)); }},
      {"scalar::le", [](V a, V b) { return IValue(number(a) <= number(b)); }},
      {"scalar::gt", [](V a, V b) { return IValue(number(a) > number(b)); }},
      {"scalar::ge", [](V a, V b) { return IValue(number(a) >= number(b)); }},
      {"scalar::and", [](V a, V b) { return IValue(truth(a) && truth(b)); }},
      {"scalar::or", [](V a, V b) { return IValue(truth(a) || truth(b)); }},
  };
  return ops;
}

}  // namespace

bool is_scalar_op(const std::string& op) {
  return unary_ops().contains(op) || binary_ops().contains(op);
}

c10::IValue apply_scalar_op(const std::string& op, const std::vector<c10::IValue>& arguments) {
  const auto unary = unary_ops().find(op);
  if (unary != unary_ops().end() && arguments.size() == 1) return unary->second(arguments[0]);
  const auto binary = binary_ops().find(op);
  if (binary != binary_ops().end() && arguments.size() == 2) {
    return binary->second(arguments[0], arguments[1]);
  }
  if (is_scalar_op(op)) {
    throw Error(ErrorCode::kRunFailed,
                fmt::format("`{}` does not take {} arguments", op, arguments.size()));
  }
  throw Error(ErrorCode::kUnsupported, fmt::format("there is no operator `{}`", op));
}

}  // namespace compress
