// Arithmetic and activations.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <c10/core/ScalarType.h>

#include <cmath>
#include <numbers>

namespace compress::onnx {
namespace {

// What ONNX Runtime computes in where the result has that dtype.
c10::ScalarType arithmetic_dtype(c10::ScalarType dtype) {
  const bool is_small = c10::isIntegralType(dtype, /*includeBool=*/true) && dtype != at::kInt;
  return is_small ? at::kLong : dtype;
}

void finish(Call& call, const std::string& name, c10::ScalarType computed_in) {
  call.result(call.cast(name, computed_in, call.out_dtype()));
}

// An operator of the same name and meaning, in the dtype of the result.
template <const char* const& op>
void unary(Call& call) {
  const c10::ScalarType dtype = arithmetic_dtype(call.out_dtype());
  finish(call, call.emit(op, {call.operand(call.node().arguments().at(0), dtype)}), dtype);
}

std::string two(Call& call, const std::string& op, c10::ScalarType dtype) {
  const auto& arguments = call.node().arguments();
  return call.emit(op,
                   {call.operand(arguments.at(0), dtype), call.operand(arguments.at(1), dtype)});
}

template <const char* const& op>
void binary(Call& call) {
  const c10::ScalarType dtype = arithmetic_dtype(call.out_dtype());
  finish(call, two(call, op, dtype), dtype);
}

// a + alpha * b, and a - alpha * b.
template <const char* const& op, bool swapped = false>
void sum(Call& call) {
  const c10::ScalarType dtype = arithmetic_dtype(call.out_dtype());
  const auto& arguments = call.node().arguments();
  std::string a = call.operand(arguments.at(0), dtype), b = call.operand(arguments.at(1), dtype);
  const Argument& alpha = call.find("alpha");
  const bool is_one = alpha.is_none() || (alpha.is_int() && alpha.as<int64_t>() == 1) ||
                      (!alpha.is_int() && alpha.as<double>() == 1);
  std::string& scaled = swapped ? a : b;
  if (!is_one) scaled = call.emit("Mul", {scaled, call.operand(alpha, dtype)});
  if (swapped) std::swap(a, b);
  finish(call, call.emit(op, {a, b}), dtype);
}

void divide(Call& call) {
  const c10::ScalarType dtype = arithmetic_dtype(call.out_dtype());
  if (!call.has("rounding_mode")) return finish(call, two(call, "Div", dtype), dtype);
  const bool is_float = c10::isFloatingType(dtype);
  if (is_float && call.text("rounding_mode") == "floor") {
    return finish(call, call.emit("Floor", {two(call, "Div", dtype)}), dtype);
  }
  if (is_float) call.refuse("division that rounds towards zero");
  if (call.text("rounding_mode") == "trunc") return finish(call, two(call, "Div", dtype), dtype);
  const std::string a = call.operand(call.argument("self"), dtype);
  const std::string b = call.operand(call.argument("other"), dtype);
  const std::string rest = call.emit("Mod", {a, b});
  finish(call, call.emit("Div", {call.emit("Sub", {a, rest}), b}), dtype);
}

void remainder(Call& call) {
  const c10::ScalarType dtype = arithmetic_dtype(call.out_dtype());
  const std::string a = call.operand(call.argument("self"), dtype);
  const std::string b = call.operand(call.argument("other"), dtype);
  if (!c10::isFloatingType(dtype)) return finish(call, call.emit("Mod", {a, b}), dtype);
  const std::string quotient = call.emit("Floor", {call.emit("Div", {a, b})});
  finish(call, call.emit("Sub", {a, call.emit("Mul", {quotient, b})}), dtype);
}

void power(Call& call) {
  const c10::ScalarType dtype = arithmetic_dtype(call.out_dtype());
  const auto& arguments = call.node().arguments();
  const std::string base = call.operand(arguments.at(0), dtype);
  const Argument& exponent = arguments.at(1);
  const bool is_two =
      (exponent.is_int() && exponent.as<int64_t>() == 2) ||
      (std::holds_alternative<double>(exponent.data()) && exponent.as<double>() == 2);
  if (is_two) return finish(call, call.emit("Mul", {base, base}), dtype);
  finish(call, call.emit("Pow", {base, call.operand(exponent, dtype)}), dtype);
}

void square(Call& call) {
  const std::string x = call.input("self");
  call.result(call.emit("Mul", {x, x}));
}

void reciprocal_root(Call& call) {
  const std::string root = call.emit("Sqrt", {call.input("self", call.out_dtype())});
  call.result(call.emit("Reciprocal", {root}));
}

void exponential_minus_one(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  const std::string e = call.emit("Exp", {call.input("self", dtype)});
  call.result(call.emit("Sub", {e, call.constant(1, dtype)}));
}

void logarithm_of_more(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  call.result(
      call.emit("Log", {call.emit("Add", {call.input("self", dtype), call.constant(1, dtype)})}));
}

std::string clip(Call& call, const std::string& x, std::string_view low, std::string_view high) {
  const c10::ScalarType dtype = call.out_dtype();
  const auto bound = [&](std::string_view name) {
    return call.has(name) ? call.operand(call.argument(name), dtype) : std::string();
  };
  // A Clip without one of its bounds takes the type's largest number for it, and changes
  // infinities.
  if (!call.has(high)) return call.emit("Max", {x, bound(low)});
  if (!call.has(low)) return call.emit("Min", {x, bound(high)});
  return call.emit("Clip", {x, bound(low), bound(high)});
}

// Bounds that are tensors may have any sizes, which those of Clip may not.
void clamp(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  std::string x = call.input("self", dtype);
  const auto is_tensor = [&](std::string_view name) { return call.find(name).is_value(); };
  if (!is_tensor("min") && !is_tensor("max")) return call.result(clip(call, x, "min", "max"));
  if (call.has("min")) x = call.emit("Max", {x, call.operand(call.argument("min"), dtype)});
  if (call.has("max")) x = call.emit("Min", {x, call.operand(call.argument("max"), dtype)});
  call.result(x);
}

void hardtanh(Call& call) { call.result(clip(call, call.input("self"), "min_val", "max_val")); }

void relu6(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  call.result(
      call.emit("Clip", {call.input("self"), call.constant(0, dtype), call.constant(6, dtype)}));
}

void silu(Call& call) {
  const std::string x = call.input("self");
  call.result(call.emit("Mul", {x, call.emit("Sigmoid", {x})}));
}

// Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv 1606.08415; the operator itself needs
// opset 20.
void gelu(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  const std::string x = call.input("self");
  const auto number = [&](double value) { return call.constant(value, dtype); };
  std::string inner;
  if (call.text("approximate") == "tanh") {
    const std::string cube = call.emit("Mul", {call.emit("Mul", {x, x}), x});
    const std::string sum = call.emit("Add", {x, call.emit("Mul", {cube, number(0.044715)})});
    inner = call.emit("Tanh", {call.emit("Mul", {sum, number(std::sqrt(2 / std::numbers::pi))})});
  } else {
    inner = call.emit("Erf", {call.emit("Div", {x, number(std::numbers::sqrt2)})});
  }
  const std::string gate = call.emit("Add", {inner, number(1)});
  call.result(call.emit("Mul", {call.emit("Mul", {x, gate}), number(0.5)}));
}

void hardsigmoid(Call& call) {
  call.result(
      call.emit("HardSigmoid", {call.input("self")}, {{"alpha", 1.0f / 6.0f}, {"beta", 0.5f}}));
}

void leaky_relu(Call& call) {
  call.result(call.emit("LeakyRelu", {call.input("self")},
                        {{"alpha", static_cast<float>(call.number("negative_slope"))}}));
}

void elu(Call& call) {
  if (call.number("scale") != 1 || call.number("input_scale") != 1) call.refuse("scaled elu");
  call.result(call.emit("Elu", {call.input("self")},
                        {{"alpha", static_cast<float>(call.number("alpha"))}}));
}

// One slope a channel, dimension 1.
void prelu(Call& call) {
  std::string slope = call.input("weight");
  std::vector<int64_t> sizes(static_cast<size_t>(std::max<int64_t>(call.rank("self") - 1, 1)), 1);
  sizes[0] = call.fixed(call.sizes("weight").at(0), "slopes");
  if (sizes.size() > 1) slope = call.emit("Reshape", {slope, call.constant(sizes)});
  call.result(call.emit("PRelu", {call.input("self"), slope}));
}

std::string soft_plus(Call& call, const std::string& x) { return call.emit("Softplus", {x}); }

void softplus(Call& call) {
  if (call.number("beta") != 1) call.refuse("softplus with beta other than 1");
  // Above the threshold x itself: from 15 on that is what a float holds of the logarithm.
  constexpr double kNoMatter = 15;
  if (call.number("threshold") < kNoMatter) call.refuse("softplus with a threshold below 15");
  call.result(soft_plus(call, call.input("self")));
}

void mish(Call& call) {
  const std::string x = call.input("self");
  call.result(call.emit("Mul", {x, call.emit("Tanh", {soft_plus(call, x)})}));
}

void glu(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  std::vector<std::string> inputs{call.input("self")};
  // From opset 18 on a Split needs to be told into what.
  const Dim whole = call.sizes("self").at(static_cast<size_t>(axis));
  if (!whole.is_symbolic()) {
    inputs.push_back(call.constant(std::vector<int64_t>{whole.size / 2, whole.size / 2}));
  }
  const auto halves = call.emit_list("Split", inputs, {{"axis", axis}}, 2);
  call.result(call.emit("Mul", {halves[0], call.emit("Sigmoid", {halves[1]})}));
}

// self + value * a * b, and self + value * a / b.
template <const char* const& op>
void add_product(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  std::string product = call.emit(op, {call.input("tensor1", dtype), call.input("tensor2", dtype)});
  product = call.emit("Mul", {product, call.operand(call.argument("value"), dtype)});
  call.result(call.emit("Add", {call.input("self", dtype), product}));
}

void same(Call& call) { call.result(call.input("self")); }

void dropout(Call& call) {
  if (call.flag("train")) call.refuse("dropout in training mode");
  call.result(call.input("input"));
}

constexpr const char* kAdd = "Add";
constexpr const char* kSub = "Sub";
constexpr const char* kMul = "Mul";
constexpr const char* kDiv = "Div";
constexpr const char* kMax = "Max";
constexpr const char* kMin = "Min";
constexpr const char* kRelu = "Relu";
constexpr const char* kSigmoid = "Sigmoid";
constexpr const char* kTanh = "Tanh";
constexpr const char* kSqrt = "Sqrt";
constexpr const char* kExp = "Exp";
constexpr const char* kLog = "Log";
constexpr const char* kAbs = "Abs";
constexpr const char* kNeg = "Neg";
constexpr const char* kSin = "Sin";
constexpr const char* kCos = "Cos";
constexpr const char* kErf = "Erf";
constexpr const char* kSign = "Sign";
constexpr const char* kFloor = "Floor";
constexpr const char* kCeil = "Ceil";
constexpr const char* kRound = "Round";
constexpr const char* kReciprocal = "Reciprocal";
constexpr const char* kHardSwish = "HardSwish";
constexpr const char* kSoftsign = "Softsign";
constexpr const char* kSelu = "Selu";

}  // namespace

Rules elementwise_rules() {
  return {{"aten::add.Tensor", sum<kAdd>},
          {"aten::add.Scalar", sum<kAdd>},
          {"aten::sub.Tensor", sum<kSub>},
          {"aten::sub.Scalar", sum<kSub>},
          {"aten::rsub.Tensor", sum<kSub, true>},
          {"aten::rsub.Scalar", sum<kSub, true>},
          {"aten::mul.Tensor", binary<kMul>},
          {"aten::mul.Scalar", binary<kMul>},
          {"aten::multiply.Tensor", binary<kMul>},
          {"aten::div.Tensor", divide},
          {"aten::div.Scalar", divide},
          {"aten::div.Tensor_mode", divide},
          {"aten::div.Scalar_mode", divide},
          {"aten::true_divide.Tensor", binary<kDiv>},
          {"aten::remainder.Tensor", remainder},
          {"aten::remainder.Scalar", remainder},
          {"aten::pow.Tensor_Scalar", power},
          {"aten::pow.Tensor_Tensor", power},
          {"aten::pow.Scalar", power},
          {"aten::square", square},
          {"aten::maximum", binary<kMax>},
          {"aten::max.other", binary<kMax>},
          {"aten::minimum", binary<kMin>},
          {"aten::min.other", binary<kMin>},
          {"aten::relu", unary<kRelu>},
          {"aten::sigmoid", unary<kSigmoid>},
          {"aten::tanh", unary<kTanh>},
          {"aten::sqrt", unary<kSqrt>},
          {"aten::rsqrt", reciprocal_root},
          {"aten::exp", unary<kExp>},
          {"aten::expm1", exponential_minus_one},
          {"aten::log", unary<kLog>},
          {"aten::log1p", logarithm_of_more},
          {"aten::abs", unary<kAbs>},
          {"aten::neg", unary<kNeg>},
          {"aten::sin", unary<kSin>},
          {"aten::cos", unary<kCos>},
          {"aten::erf", unary<kErf>},
          {"aten::sign", unary<kSign>},
          {"aten::floor", unary<kFloor>},
          {"aten::ceil", unary<kCeil>},
          {"aten::round", unary<kRound>},
          {"aten::reciprocal", unary<kReciprocal>},
          {"aten::clamp", clamp},
          {"aten::clamp.Tensor", clamp},
          {"aten::clamp_min", clamp},
          {"aten::clamp_min.Tensor", clamp},
          {"aten::clamp_max", clamp},
          {"aten::clamp_max.Tensor", clamp},
          {"aten::hardtanh", hardtanh},
          {"aten::relu6", relu6},
          {"aten::silu", silu},
          {"aten::gelu", gelu},
          {"aten::hardswish", unary<kHardSwish>},
          {"aten::hardsigmoid", hardsigmoid},
          {"aten::leaky_relu", leaky_relu},
          {"aten::elu", elu},
          {"aten::selu", unary<kSelu>},
          {"aten::prelu", prelu},
          {"aten::softplus", softplus},
          {"aten::softsign", unary<kSoftsign>},
          {"aten::mish", mish},
          {"aten::glu", glu},
          {"aten::addcmul", add_product<kMul>},
          {"aten::addcdiv", add_product<kDiv>},
          {"aten::contiguous", same},
          {"aten::clone", same},
          {"aten::detach", same},
          {"aten::alias", same},
          {"aten::lift_fresh_copy", same},
          {"aten::dropout", dropout},
          {"aten::feature_dropout", dropout},
          {"aten::alpha_dropout", dropout}};
}

}  // namespace compress::onnx
