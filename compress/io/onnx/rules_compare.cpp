// Comparisons, logic, choices, casts.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <c10/core/ScalarType.h>

#include <limits>

namespace compress::onnx {
namespace {

// The dtype that both sides of a comparison take, one that ONNX Runtime compares.
c10::ScalarType common_dtype(Call& call, const Argument& a, const Argument& b) {
  std::optional<c10::ScalarType> dtype;
  for (const Argument* side : {&a, &b}) {
    if (side->value() == nullptr || side->value()->kind() != ValueKind::kTensor) continue;
    dtype = dtype ? c10::promoteTypes(*dtype, call.dtype_of(*side)) : call.dtype_of(*side);
  }
  for (const Argument* side : {&a, &b}) {
    const bool is_fraction = std::holds_alternative<double>(side->data());
    if (dtype && is_fraction && !c10::isFloatingType(*dtype)) dtype = at::kFloat;
  }
  if (dtype && c10::isIntegralType(*dtype, /*includeBool=*/true)) dtype = at::kLong;
  return dtype.value_or(at::kLong);
}

template <const char* const& op>
void compare(Call& call) {
  const auto& arguments = call.node().arguments();
  const c10::ScalarType dtype = common_dtype(call, arguments.at(0), arguments.at(1));
  call.result(
      call.emit(op, {call.operand(arguments.at(0), dtype), call.operand(arguments.at(1), dtype)}));
}

void unequal(Call& call) {
  const auto& arguments = call.node().arguments();
  const c10::ScalarType dtype = common_dtype(call, arguments.at(0), arguments.at(1));
  const std::string equal = call.emit(
      "Equal", {call.operand(arguments.at(0), dtype), call.operand(arguments.at(1), dtype)});
  call.result(call.emit("Not", {equal}));
}

template <const char* const& op>
void logic(Call& call) {
  const auto& arguments = call.node().arguments();
  call.result(call.emit(
      op, {call.operand(arguments.at(0), at::kBool), call.operand(arguments.at(1), at::kBool)}));
}

// The same of bits, which are logic on booleans.
template <const char* const& op>
void bits(Call& call) {
  if (call.out_dtype() != at::kBool) call.refuse("bits of integers");
  logic<op>(call);
}

void logical_not(Call& call) { call.result(call.emit("Not", {call.input("self", at::kBool)})); }

void bitwise_not(Call& call) {
  if (call.out_dtype() != at::kBool) call.refuse("bits of integers");
  logical_not(call);
}

void where(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  call.result(call.emit(
      "Where", {call.input("condition", at::kBool), call.operand(call.argument("self"), dtype),
                call.operand(call.argument("other"), dtype)}));
}

void masked_fill(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  call.result(call.emit("Where",
                        {call.input("mask", at::kBool), call.operand(call.argument("value"), dtype),
                         call.operand(call.argument("self"), dtype)}));
}

void cast(Call& call) { call.result(call.input("self", call.out_dtype())); }

void is_infinite(Call& call) { call.result(call.emit("IsInf", {call.input("self")})); }
void is_nan(Call& call) { call.result(call.emit("IsNaN", {call.input("self")})); }

constexpr const char* kEqual = "Equal";
constexpr const char* kLess = "Less";
constexpr const char* kLessOrEqual = "LessOrEqual";
constexpr const char* kGreater = "Greater";
constexpr const char* kGreaterOrEqual = "GreaterOrEqual";
constexpr const char* kAnd = "And";
constexpr const char* kOr = "Or";
constexpr const char* kXor = "Xor";

}  // namespace

Rules compare_rules() {
  return {{"aten::eq.Tensor", compare<kEqual>},
          {"aten::eq.Scalar", compare<kEqual>},
          {"aten::ne.Tensor", unequal},
          {"aten::ne.Scalar", unequal},
          {"aten::lt.Tensor", compare<kLess>},
          {"aten::lt.Scalar", compare<kLess>},
          {"aten::le.Tensor", compare<kLessOrEqual>},
          {"aten::le.Scalar", compare<kLessOrEqual>},
          {"aten::gt.Tensor", compare<kGreater>},
          {"aten::gt.Scalar", compare<kGreater>},
          {"aten::ge.Tensor", compare<kGreaterOrEqual>},
          {"aten::ge.Scalar", compare<kGreaterOrEqual>},
          {"aten::logical_and", logic<kAnd>},
          {"aten::logical_or", logic<kOr>},
          {"aten::logical_xor", logic<kXor>},
          {"aten::logical_not", logical_not},
          {"aten::__and__.Tensor", bits<kAnd>},
          {"aten::__or__.Tensor", bits<kOr>},
          {"aten::__xor__.Tensor", bits<kXor>},
          {"aten::bitwise_and.Tensor", bits<kAnd>},
          {"aten::bitwise_or.Tensor", bits<kOr>},
          {"aten::bitwise_xor.Tensor", bits<kXor>},
          {"aten::bitwise_not", bitwise_not},
          {"aten::where.self", where},
          {"aten::where.ScalarOther", where},
          {"aten::where.ScalarSelf", where},
          {"aten::where.Scalar", where},
          {"aten::masked_fill.Scalar", masked_fill},
          {"aten::masked_fill.Tensor", masked_fill},
          {"aten::to.dtype", cast},
          {"aten::to.dtype_layout", cast},
          {"aten::to.device", cast},
          {"aten::to.other", cast},
          {"aten::type_as", cast},
          {"aten::_to_copy", cast},
          {"aten::isinf", is_infinite},
          {"aten::isnan", is_nan}};
}

}  // namespace compress::onnx
