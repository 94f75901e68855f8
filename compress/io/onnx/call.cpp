// The call of one operator, as its rule sees it.

#include "compress/error.h"
#include "compress/graph/dtype_names.h"
#include "compress/graph/interpreter.h"
#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <fmt/format.h>

#include <numeric>

namespace compress::onnx {
namespace {

int64_t from_front(int64_t axis, int64_t rank) { return axis < 0 ? axis + rank : axis; }

}  // namespace

Rule find_rule(const std::string& op) {
  static const Rules rules = [] {
    Rules all;
    for (const Rules& family :
         {layer_rules(), norm_rules(), elementwise_rules(), compare_rules(), shape_rules(),
          movement_rules(), attention_rules(), pool_rules(), reduce_rules(), index_rules(),
          create_rules(), recurrent_rules(), scalar_rules(), quantize_rules()}) {
      all.insert(family.begin(), family.end());
    }
    return all;
  }();
  const auto found = rules.find(op);
  return found == rules.end() ? nullptr : found->second;
}

const Argument& Call::find(std::string_view name) const {
  static const Argument none;
  const auto index = node_.argument_index(name);
  return index ? node_.arguments()[*index] : none;
}

std::string Call::tensor(const Argument& argument) {
  if (argument.value() == nullptr || argument.value()->kind() != ValueKind::kTensor) {
    refuse("an argument that is no tensor");
  }
  return translator_.name_of(argument.value());
}

std::string Call::input(std::string_view name, c10::ScalarType wanted) {
  return cast(input(name), dtype(name), wanted);
}

std::string Call::optional_input(std::string_view name) {
  return has(name) ? input(name) : std::string();
}

std::vector<std::string> Call::inputs(std::string_view name) {
  std::vector<std::string> names;
  for (const Argument& element : argument(name).list()) names.push_back(tensor(element));
  return names;
}

std::string Call::operand(const Argument& argument, c10::ScalarType wanted) {
  if (const Value* value = argument.value()) {
    if (value->kind() == ValueKind::kTensor) {
      return cast(tensor(argument), dtype_of(argument), wanted);
    }
    return cast(as_scalar(size(argument)), at::kLong, wanted);
  }
  if (std::holds_alternative<bool>(argument.data())) {
    return constant(at::full({}, argument.as<bool>(), wanted));
  }
  if (argument.is_int()) return constant(at::full({}, argument.as<int64_t>(), wanted));
  return constant(argument.as<double>(), wanted);
}

std::optional<at::Tensor> Call::stored(const Argument& argument) {
  const Value* value = argument.value();
  if (value == nullptr || !translator_.is_constant(value)) return std::nullopt;
  return evaluate(translator_.model_, value).detach();
}

const std::vector<Dim>& Call::sizes_of(const Argument& argument) const {
  const Value* value = argument.value();
  if (value == nullptr || !value->type.sizes) refuse("a tensor of unknown sizes");
  return *value->type.sizes;
}

c10::ScalarType Call::dtype_of(const Argument& argument) const {
  const Value* value = argument.value();
  if (value == nullptr || !value->type.dtype) refuse("a tensor of unknown type");
  return *value->type.dtype;
}

const std::vector<Dim>& Call::out_sizes(size_t index) const {
  return sizes_of(Argument(node_.outputs().at(index)));
}

c10::ScalarType Call::out_dtype(size_t index) const {
  return dtype_of(Argument(node_.outputs().at(index)));
}

int64_t Call::integer(std::string_view name) const { return argument(name).as<int64_t>(); }

double Call::number(std::string_view name) const {
  const Argument& found = argument(name);
  return found.is_int() ? static_cast<double>(found.as<int64_t>()) : found.as<double>();
}

bool Call::flag(std::string_view name) const { return argument(name).as<bool>(); }

std::string Call::text(std::string_view name) const { return argument(name).as<std::string>(); }

std::vector<int64_t> Call::integers(std::string_view name) const {
  const Argument& found = argument(name);
  if (found.is_int()) return {found.as<int64_t>()};
  return found.ints();
}

int64_t Call::axis(std::string_view name, int64_t rank) const {
  return from_front(integer(name), rank);
}

std::vector<int64_t> Call::axes(std::string_view name, int64_t rank) const {
  std::vector<int64_t> axes;
  if (has(name)) axes = integers(name);
  for (int64_t& axis : axes) axis = from_front(axis, rank);
  if (axes.empty()) {
    axes.resize(static_cast<size_t>(rank));
    std::iota(axes.begin(), axes.end(), 0);
  }
  return axes;
}

int64_t Call::fixed(const Dim& dim, std::string_view what) const {
  if (dim.is_symbolic()) refuse(fmt::format("{} of a size that is not fixed", what));
  return dim.size;
}

std::string Call::emit(const std::string& op, std::vector<std::string> inputs,
                       std::vector<Attribute> attributes) {
  return translator_.emit(op, std::move(inputs), std::move(attributes), 1)[0];
}

std::vector<std::string> Call::emit_list(const std::string& op, std::vector<std::string> inputs,
                                         std::vector<Attribute> attributes, size_t outputs) {
  return translator_.emit(op, std::move(inputs), std::move(attributes), outputs);
}

std::string Call::constant(const std::vector<int64_t>& numbers) {
  return constant(at::tensor(numbers, at::kLong));
}

std::string Call::constant(double number, c10::ScalarType dtype) {
  return constant(at::full({}, number, dtype));
}

std::string Call::cast(const std::string& name, c10::ScalarType from, c10::ScalarType to) {
  if (from == to) return name;
  return emit("Cast", {name}, {{"to", static_cast<int64_t>(data_type(to))}});
}

std::string Call::transpose(const std::string& name, const std::vector<int64_t>& order) {
  return emit("Transpose", {name}, {{"perm", order}});
}

std::string Call::unsqueeze(const std::string& name, const std::vector<int64_t>& axes) {
  return emit("Unsqueeze", {name, constant(axes)});
}

std::string Call::squeeze(const std::string& name, const std::vector<int64_t>& axes) {
  return emit("Squeeze", {name, constant(axes)});
}

std::string Call::slice(const std::string& name, int64_t axis, const Size& start, const Size& end,
                        int64_t step) {
  return emit("Slice", {name, as_tensor(start), as_tensor(end), constant(std::vector{axis}),
                        constant(std::vector{step})});
}

std::string Call::reduce(const std::string& op, const std::string& name,
                         const std::vector<int64_t>& axes, bool keep) {
  const Attribute keep_dims{"keepdims", int64_t{keep}};
  if (op == "ReduceSum" || opset() >= 18) return emit(op, {name, constant(axes)}, {keep_dims});
  return emit(op, {name}, {{"axes", axes}, keep_dims});
}

const EncodedWeight* Call::encoded(const Argument& weight) const {
  const auto found = translator_.weights_.find(weight.value());
  return found == translator_.weights_.end() ? nullptr : &found->second;
}

std::string Call::transposed_weight(const Argument& weight) {
  const Value* value = weight.value();
  std::string& name = translator_.transposed_[value];
  if (!name.empty()) return name;
  if (const EncodedWeight* codes = encoded(weight)) {
    return name = translator_.add_decoded(*codes, value->type.dtype.value(), /*transposed=*/true);
  }
  // A tied tensor is written once, as it is.
  if (!translator_.is_constant(value) || translator_.uses_.of(value).size() > 1) {
    return name = transpose(tensor(weight), {1, 0});
  }
  Initializer turned = translator_.stored(value);
  std::swap(turned.sizes.at(0), turned.sizes.at(1));
  turned.load = [load = turned.load] { return load().t(); };
  return name = translator_.add_initializer(std::move(turned));
}

void Call::result(const std::string& name, size_t index) {
  translator_.bind(node_.outputs().at(index), name);
}

void Call::result(Size size) { translator_.scalars_[node_.outputs().at(0)] = std::move(size); }

}  // namespace compress::onnx
