// What a thread's ATen calls look like from the outside, noted in a graph.

#pragma once

#include "compress/model.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>

#include <functional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace compress {

/// Notes every ATen call of this thread in a model's graph, in-place operators as they are.
class Trace {
 public:
  explicit Trace(Model& model) : model_(model) {}

  /// Tells which value a tensor is.
  void bind(const at::Tensor& tensor, Value* value);
  /// The value of a tensor; an unknown tensor becomes a constant of the model.
  Value* value_of(const at::Tensor& tensor);

  /// Runs `work` with every ATen call going through `call`. One trace at a time in a thread.
  void watch(const std::function<void()>& work);

  /// Runs the operator on the stack and notes it.
  void call(const c10::OperatorHandle& op, std::vector<c10::IValue>* stack);

 private:
  Argument to_argument(const c10::IValue& value, const c10::TypePtr& type);
  std::vector<Argument> to_arguments(const c10::FunctionSchema& schema,
                                     const std::vector<c10::IValue>& stack);
  void note(const c10::FunctionSchema& schema, std::vector<Argument> arguments,
            c10::ArrayRef<c10::IValue> returned);

  // A tensor that torch:: factories have wrapped anew is known by its memory only.
  struct Known {
    at::Tensor tensor;
    Value* value;
  };
  Model& model_;
  std::unordered_map<const c10::TensorImpl*, Value*> by_impl_;
  std::unordered_map<const c10::StorageImpl*, std::vector<Known>> by_storage_;
  std::vector<at::Tensor> alive_;  // so that no address is used twice while recording
};

}  // namespace compress
