// Between arguments of a graph and the boxed values of LibTorch's dispatcher.

#include "compress/graph/boxing.h"

#include "compress/error.h"

#include <ATen/ops/scalar_tensor.h>
#include <c10/core/ScalarTypeToTypeMeta.h>

#include <fmt/format.h>

#include <optional>

namespace compress {
namespace {

using c10::IValue;

c10::TypePtr strip_optional(c10::TypePtr type) {
  while (type->kind() == c10::TypeKind::OptionalType) {
    type = type->expectRef<c10::OptionalType>().getElementType();
  }
  return type;
}

// `mul.Tensor(x, 0.5)`: a number in a tensor's place takes part in type promotion as a number.
at::Tensor wrapped_number(const IValue& number) {
  const c10::ScalarType dtype = number.isInt()    ? c10::kLong
                                : number.isBool() ? c10::kBool
                                                  : c10::kDouble;
  at::Tensor tensor = at::scalar_tensor(number.toScalar(), at::TensorOptions().dtype(dtype));
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

IValue fit(const IValue& value, const c10::TypePtr& type) {
  const bool is_number = value.isInt() || value.isDouble() || value.isBool();
  switch (type->kind()) {
    case c10::TypeKind::TensorType:
      return is_number ? IValue(wrapped_number(value)) : value;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
      return is_number ? IValue(value.toScalar().toDouble()) : value;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return value.isBool() ? IValue(static_cast<int64_t>(value.toBool())) : value;
    case c10::TypeKind::BoolType:
      return value.isInt() ? IValue(value.toInt() != 0) : value;
    default:
      return value;
  }
}

IValue constant(const Argument& argument) {
  struct Visitor {
    IValue operator()(std::monostate) const { return {}; }
    IValue operator()(Value*) const { return {}; }
    IValue operator()(bool v) const { return v; }
    IValue operator()(int64_t v) const { return v; }
    IValue operator()(double v) const { return v; }
    IValue operator()(const std::string& v) const { return v; }
    IValue operator()(c10::ScalarType v) const { return static_cast<int64_t>(v); }
    IValue operator()(c10::Layout v) const { return static_cast<int64_t>(v); }
    IValue operator()(c10::MemoryFormat v) const { return static_cast<int64_t>(v); }
    IValue operator()(c10::Device v) const { return v; }
    IValue operator()(const Argument::List&) const { return {}; }
  };
  return std::visit(Visitor(), argument.data());
}

IValue box_list(const Argument::List& elements, const c10::TypePtr& element_type,
                const ValueLookup& lookup) {
  std::vector<IValue> boxed;
  boxed.reserve(elements.size());
  for (const Argument& element : elements) boxed.push_back(box(element, element_type, lookup));
  switch (element_type->kind()) {
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: {
      c10::List<int64_t> list;
      for (const IValue& value : boxed) list.push_back(value.toInt());
      return list;
    }
    case c10::TypeKind::FloatType: {
      c10::List<double> list;
      for (const IValue& value : boxed) list.push_back(value.toDouble());
      return list;
    }
    case c10::TypeKind::BoolType: {
      c10::List<bool> list;
      for (const IValue& value : boxed) list.push_back(value.toBool());
      return list;
    }
    case c10::TypeKind::TensorType: {
      c10::List<at::Tensor> list;
      for (const IValue& value : boxed) list.push_back(value.toTensor());
      return list;
    }
    default: {
      if (strip_optional(element_type)->kind() == c10::TypeKind::TensorType) {
        c10::List<std::optional<at::Tensor>> list;
        for (const IValue& value : boxed) list.push_back(value.toOptional<at::Tensor>());
        return list;
      }
      c10::impl::GenericList list(element_type);
      for (IValue& value : boxed) list.push_back(std::move(value));
      return list;
    }
  }
}

}  // namespace

c10::IValue box(const Argument& argument, const c10::TypePtr& declared, const ValueLookup& lookup) {
  if (argument.is_none()) return {};
  const c10::TypePtr type = strip_optional(declared);
  if (argument.is_list()) {
    if (type->kind() != c10::TypeKind::ListType) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("a list stands where the operator takes {}", type->str()));
    }
    return box_list(argument.list(), type->expectRef<c10::ListType>().getElementType(), lookup);
  }
  return fit(argument.is_value() ? lookup(argument.value()) : constant(argument), type);
}

}  // namespace compress
