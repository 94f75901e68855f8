// What a thread's ATen calls look like from the outside, noted in a graph.
//
// A fallback on the dispatch key TESTING_ONLY_GenericMode sees every call once, before it is
// decomposed and before autograd, and only in the thread that includes the key.

#include "compress/record/trace.h"

#include "compress/error.h"

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/function_schema.h>
#include <ATen/ops/alias.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <fmt/format.h>

namespace compress {
namespace {

using c10::IValue;
using c10::TypeKind;
using Stack = std::vector<IValue>;

constexpr c10::DispatchKey kKey = c10::DispatchKey::TESTING_ONLY_GenericMode;

thread_local Trace* active = nullptr;

void on_call(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard off(kKey);
  if (active == nullptr) return op.callBoxed(stack);
  active->call(op, stack);
}

c10::TypePtr element_type(const c10::TypePtr& type) {
  if (type->kind() != TypeKind::ListType) return type;
  return type->expectRef<c10::ListType>().getElementType();
}

[[noreturn]] void refuse(const c10::FunctionSchema& schema, const std::string& what) {
  throw Error(ErrorCode::kUnsupported,
              fmt::format("recording {}: {}", toString(schema.operator_name()), what));
}

std::string op_name(const c10::FunctionSchema& schema) {
  const c10::OperatorName& name = schema.operator_name();
  return name.overload_name.empty() ? name.name
                                    : fmt::format("{}.{}", name.name, name.overload_name);
}

bool writes(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

bool is_mutable(const c10::FunctionSchema& schema) {
  for (const c10::Argument& argument : schema.arguments()) {
    if (writes(argument)) return true;
  }
  return false;
}

bool returns_tensors(const c10::FunctionSchema& schema) {
  for (const c10::Argument& returned : schema.returns()) {
    if (element_type(returned.type())->kind() == TypeKind::TensorType) return true;
  }
  return false;
}

// `dropout` in inference and `contiguous` may return their own input. A tensor of its own for the
// result keeps "before" and "after" apart, which matters once the mode is flipped.
void separate(const c10::FunctionSchema& schema, const Stack& inputs, Stack& stack, size_t first) {
  for (size_t i = 0; i < schema.returns().size(); ++i) {
    IValue& returned = stack[first + i];
    if (writes(schema.returns()[i]) || !returned.isTensor()) continue;
    for (const IValue& input : inputs) {
      if (!input.isTensor() || !input.toTensor().defined()) continue;
      if (input.toTensor().is_same(returned.toTensor())) {
        returned = at::alias(returned.toTensor());
        break;
      }
    }
  }
}

TensorType type_of(const at::Tensor& tensor) {
  TensorType type;
  type.dtype = tensor.scalar_type();
  type.sizes.emplace(tensor.sizes().begin(), tensor.sizes().end());
  return type;
}

}  // namespace

void Trace::bind(const at::Tensor& tensor, Value* value) {
  by_impl_[tensor.unsafeGetTensorImpl()] = value;
  if (tensor.has_storage()) {
    by_storage_[tensor.storage().unsafeGetStorageImpl()].push_back({tensor, value});
  }
  alive_.push_back(tensor);
}

Value* Trace::value_of(const at::Tensor& tensor) {
  const auto by_impl = by_impl_.find(tensor.unsafeGetTensorImpl());
  if (by_impl != by_impl_.end()) return by_impl->second;
  if (tensor.has_storage()) {
    const auto found = by_storage_.find(tensor.storage().unsafeGetStorageImpl());
    if (found != by_storage_.end()) {
      const std::vector<Known>& known = found->second;
      for (auto twin = known.rbegin(); twin != known.rend(); ++twin) {
        const at::Tensor& other = twin->tensor;
        const bool same = other.sizes() == tensor.sizes() && other.strides() == tensor.strides() &&
                          other.storage_offset() == tensor.storage_offset() &&
                          other.scalar_type() == tensor.scalar_type();
        // What the twin is now: it may have been written to since.
        if (same) return by_impl_.at(other.unsafeGetTensorImpl());
      }
    }
  }
  size_t number = 0;
  std::string name = "constant_0";
  while (model_.graph().find(name) != nullptr) name = fmt::format("constant_{}", ++number);
  Value* constant = model_.add_tensor(name, tensor.detach(), TensorRole::kConstant);
  bind(tensor, constant);
  return constant;
}

void Trace::watch(const std::function<void()>& work) {
  // Registered once for the process; it costs nothing while no thread includes the key.
  static const c10::RegistrationHandleRAII registered =
      c10::Dispatcher::singleton().registerFallback(
          kKey, c10::KernelFunction::makeFromBoxedFunction<&on_call>(), "compress::record");
  if (active != nullptr) {
    throw Error(ErrorCode::kInvalidArgument, "a recording is under way in this thread already");
  }
  struct Active {
    explicit Active(Trace* trace) { active = trace; }
    ~Active() { active = nullptr; }
  };
  const Active now(this);
  const c10::impl::IncludeDispatchKeyGuard on(kKey);
  work();
}

void Trace::call(const c10::OperatorHandle& op, Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const Stack inputs(stack->end() - schema.arguments().size(), stack->end());
  const bool noted = returns_tensors(schema);
  std::vector<Argument> arguments;
  if (noted) arguments = to_arguments(schema, inputs);
  if (!noted && is_mutable(schema)) refuse(schema, "it changes tensors and returns none");
  const std::string& name = schema.name();
  if (name == "aten::item" || name == "aten::_local_scalar_dense" || name == "aten::is_nonzero") {
    model_.notes.push_back(fmt::format("a number that {} read out of a tensor is baked in", name));
  }
  op.callBoxed(stack);
  if (!noted) return;
  const size_t first = stack->size() - schema.returns().size();
  separate(schema, inputs, *stack, first);
  note(schema, std::move(arguments), c10::ArrayRef<IValue>(*stack).slice(first));
}

std::vector<Argument> Trace::to_arguments(const c10::FunctionSchema& schema, const Stack& inputs) {
  std::vector<Argument> arguments;
  for (size_t i = 0; i < inputs.size(); ++i) {
    try {
      arguments.push_back(to_argument(inputs[i], schema.arguments()[i].real_type()));
    } catch (const std::invalid_argument& unfit) {
      refuse(schema,
             fmt::format("argument `{}` is {}", schema.arguments()[i].name(), unfit.what()));
    }
  }
  return arguments;
}

Argument Trace::to_argument(const IValue& value, const c10::TypePtr& declared) {
  c10::TypePtr type = declared;
  while (type->kind() == TypeKind::OptionalType) {
    type = type->expectRef<c10::OptionalType>().getElementType();
  }
  if (value.isNone() || value.isGenerator()) return {};
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) return {};
    const bool is_number = tensor.unsafeGetTensorImpl()->is_wrapped_number();
    return is_number ? to_argument(IValue(tensor.item()), type) : Argument(value_of(tensor));
  }
  if (value.isList()) {
    Argument::List list;
    for (const IValue& element : value.toListRef()) {
      list.push_back(to_argument(element, element_type(type)));
    }
    return Argument(std::move(list));
  }
  if (value.isBool()) return Argument(value.toBool());
  if (value.isDouble()) return Argument(value.toDouble());
  if (value.isString()) return Argument(value.toStringRef());
  if (value.isDevice()) return Argument(value.toDevice());
  if (value.isInt()) {
    const int64_t number = value.toInt();
    switch (type->kind()) {
      case TypeKind::ScalarTypeType:
        return Argument(static_cast<c10::ScalarType>(number));
      case TypeKind::LayoutType:
        return Argument(static_cast<c10::Layout>(number));
      case TypeKind::MemoryFormatType:
        return Argument(static_cast<c10::MemoryFormat>(number));
      default:
        return Argument(number);
    }
  }
  throw std::invalid_argument(fmt::format("a {}, which a graph cannot hold", value.tagKind()));
}

void Trace::note(const c10::FunctionSchema& schema, std::vector<Argument> arguments,
                 c10::ArrayRef<IValue> returned) {
  Graph::Call call;
  call.op = op_name(schema);
  call.arguments = std::move(arguments);
  for (const IValue& result : returned) {
    if (result.isList()) call.list_size = result.toListRef().size();
  }
  const std::vector<Value*> outputs = model_.graph().append(std::move(call))->outputs();
  size_t next = 0;
  const auto take = [&](const IValue& result) {
    Value* output = outputs.at(next++);
    if (!result.isTensor() || !result.toTensor().defined()) return;
    output->type = type_of(result.toTensor());
    bind(result.toTensor(), output);
  };
  for (const IValue& result : returned) {
    if (result.isList()) {
      for (const IValue& element : result.toListRef()) take(element);
    } else {
      take(result);
    }
  }
}

}  // namespace compress
