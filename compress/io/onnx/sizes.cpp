// Sizes in an ONNX graph: numbers where they are known, else int64 [1] tensors.

#include "compress/error.h"
#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <fmt/format.h>

#include <algorithm>

namespace compress::onnx {
namespace {

int64_t floor_divide(int64_t a, int64_t b) {
  return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

// The result for known numbers, if it is one.
std::optional<int64_t> compute(const std::string& op, int64_t a, int64_t b) {
  if (op == "Add") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Max") return std::max(a, b);
  if (op == "Min") return std::min(a, b);
  if (op == "FloorDiv" && b != 0) return floor_divide(a, b);
  if (op == "Mod" && b != 0) return a - b * floor_divide(a, b);
  return std::nullopt;
}

}  // namespace

std::string Translator::as_tensor(const Size& size) {
  return size.is_known() ? constant(at::tensor({size.number}, at::kLong)) : size.name;
}

Size Translator::size_of(const std::string& name, const Dim& dim, int64_t index) {
  if (!dim.is_symbolic()) return dim.size;
  auto& shape = shapes_[{name, index}];
  if (shape.empty()) shape = emit("Shape", {name}, {{"start", index}, {"end", index + 1}}, 1)[0];
  return Size(shape);
}

Size Translator::size_of(const SizeExpression& expression) {
  if (expression.kind == SizeExpression::Kind::kNumber) return expression.number;
  if (expression.kind == SizeExpression::Kind::kSymbol) {
    const auto found = symbols_.find(expression.name);
    if (found == symbols_.end()) {
      throw Refusal{fmt::format("a size `{}` that is no size of an input", expression.name)};
    }
    return size_of(found->second.first, Dim(expression.name, 0), found->second.second);
  }
  const bool is_known = expression.name == "Add" || expression.name == "Mul" ||
                        expression.name == "FloorDiv" || expression.name == "Mod" ||
                        expression.name == "Max" || expression.name == "Min";
  if (!is_known || expression.arguments.empty()) {
    throw Refusal{fmt::format("a size `{}`", print_readable(expression))};
  }
  Size size = size_of(expression.arguments[0]);
  for (size_t i = 1; i < expression.arguments.size(); ++i) {
    size = arithmetic(expression.name, size, size_of(expression.arguments[i]));
  }
  return size;
}

Size Translator::arithmetic(const std::string& op, Size a, Size b) {
  if (a.is_known() && b.is_known()) {
    if (const auto known = compute(op, a.number, b.number)) return *known;
  }
  const std::string left = as_tensor(a), right = as_tensor(b);
  if (op != "FloorDiv") {
    return Size(emit(op, {left, right}, {}, 1)[0]);
  }
  // ONNX divides towards zero; its Mod has the sign of the divisor, as Python's.
  const std::string rest = emit("Mod", {left, right}, {}, 1)[0];
  return Size(emit("Div", {emit("Sub", {left, rest}, {}, 1)[0], right}, {}, 1)[0]);
}

Size Translator::scalar(const Value* value) {
  const auto found = scalars_.find(value);
  if (found != scalars_.end()) return found->second;
  if (value->is_input()) {
    const std::string one = constant(at::tensor({int64_t{1}}, at::kLong));
    return scalars_[value] = Size(emit("Reshape", {names_.at(value), one}, {}, 1)[0]);
  }
  throw Refusal{fmt::format("`{}` is no size", value->name())};
}

Size Call::size(const Argument& argument) {
  if (argument.is_int()) return argument.as<int64_t>();
  if (argument.value() == nullptr) refuse("a size that is no whole number");
  if (argument.value()->kind() == ValueKind::kTensor) {
    return Size(emit("Reshape", {cast(tensor(argument), dtype_of(argument), at::kLong),
                                 constant(std::vector<int64_t>{1})}));
  }
  return translator_.scalar(argument.value());
}

std::string Call::shape(const std::vector<Size>& sizes) {
  std::vector<std::string> parts;
  std::vector<int64_t> known;  // in a row
  const auto flush = [&] {
    if (!known.empty()) parts.push_back(constant(known));
    known.clear();
  };
  for (const Size& size : sizes) {
    if (size.is_known()) {
      known.push_back(size.number);
      continue;
    }
    flush();
    parts.push_back(size.name);
  }
  flush();
  if (parts.empty()) return constant(std::vector<int64_t>{});
  return parts.size() == 1 ? parts[0] : emit("Concat", parts, {{"axis", int64_t{0}}});
}

std::string Call::shape(const std::vector<Dim>& sizes) {
  std::vector<Size> runtime;
  for (const Dim& dim : sizes) {
    if (!dim.is_symbolic()) {
      runtime.emplace_back(dim.size);
      continue;
    }
    const auto expression = parse_size_expression(dim.symbol);
    if (!expression) refuse("a size `" + dim.symbol + "`");
    runtime.push_back(translator_.size_of(*expression));
  }
  return shape(runtime);
}

std::string Call::as_scalar(const Size& size) {
  if (size.is_known()) return constant(at::full({}, size.number, at::kLong));
  return squeeze(size.name, {0});
}

std::string Call::reshape(const std::string& name, const std::vector<Dim>& from,
                          const std::vector<Dim>& to) {
  std::vector<int64_t> target;
  int64_t open = 0;
  for (size_t i = 0; i < to.size(); ++i) {
    if (!to[i].is_symbolic()) {
      target.push_back(to[i].size);
    } else if (i < from.size() && from[i] == to[i]) {
      target.push_back(0);  // as it is
    } else {
      target.push_back(-1);
      ++open;
    }
  }
  const bool has_zero = std::any_of(
      to.begin(), to.end(), [](const Dim& dim) { return !dim.is_symbolic() && dim.size == 0; });
  if (open <= 1 && !has_zero) return emit("Reshape", {name, constant(target)});
  return emit("Reshape", {name, shape(to)}, {{"allowzero", int64_t{1}}});
}

namespace {

void translate_size(Call& call) {
  const std::vector<Dim>& sizes = call.sizes("self");
  call.result(call.size_of(call.input("self"), sizes, call.axis("dim", call.rank("self"))));
}

template <const char* const& op>
void translate_binary(Call& call) {
  const std::vector<Argument>& arguments = call.node().arguments();
  call.result(call.arithmetic(op, call.size(arguments.at(0)), call.size(arguments.at(1))));
}

void translate_negation(Call& call) {
  call.result(call.arithmetic("Sub", 0, call.size(call.node().arguments().at(0))));
}

void translate_same(Call& call) { call.result(call.size(call.node().arguments().at(0))); }

constexpr const char* kAdd = "Add";
constexpr const char* kSub = "Sub";
constexpr const char* kMul = "Mul";
constexpr const char* kMax = "Max";
constexpr const char* kMin = "Min";
constexpr const char* kFloorDiv = "FloorDiv";
constexpr const char* kMod = "Mod";

}  // namespace

Rules scalar_rules() {
  return {{"aten::sym_size.int", translate_size},
          {"scalar::add", translate_binary<kAdd>},
          {"scalar::sub", translate_binary<kSub>},
          {"scalar::mul", translate_binary<kMul>},
          {"scalar::max", translate_binary<kMax>},
          {"scalar::min", translate_binary<kMin>},
          {"scalar::floordiv", translate_binary<kFloorDiv>},
          {"scalar::mod", translate_binary<kMod>},
          {"scalar::neg", translate_negation},
          {"scalar::int", translate_same}};
}

}  // namespace compress::onnx
