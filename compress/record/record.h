// A C++ torch::nn module becomes a Model that shares its parameters.
//
// Light to include: nothing of torch::nn is needed here, the caller brings the module's type.

#pragma once

#include "compress/error.h"
#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace compress {

struct RecordOptions {
  /// Names of the graph's inputs; those without a name are called `input`, `input_1`, ...
  std::vector<std::string> input_names = {};
  /// Frees the leading dimension of the inputs where the result provably agrees (see
  /// `generalize_batch`); otherwise a note says why not.
  bool dynamic_batch = true;
};

/// Runs `forward` once on `inputs` without gradients and returns what it did as a model.
///
/// `tensors` are the parameters and buffers it may use; the model holds these very tensors, so an
/// optimizer step on either side is seen by the other. Any other tensor that `forward` brings along
/// becomes a constant. Control flow is recorded as it went for these inputs; a number read out of
/// a tensor (`item`) is baked in, which a note says. Buffers have their contents back afterwards.
/// Mode (train or eval) is that of the moment; `Model::train` and `eval` flip it later. Throws
/// Error(kUnsupported) for calls that a graph cannot hold.
Model record_function(
    const std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>& forward,
    const std::vector<at::Tensor>& inputs, const std::vector<NamedTensor>& tensors,
    const RecordOptions& options = {});

namespace detail {

// Tensors out of what a forward function returns: a tensor, tuples and vectors of them, nested.
inline void flatten_outputs(const at::Tensor& output, std::vector<at::Tensor>& tensors) {
  tensors.push_back(output);
}
template <class Element>
void flatten_outputs(const std::vector<Element>& outputs, std::vector<at::Tensor>& tensors) {
  for (const Element& output : outputs) flatten_outputs(output, tensors);
}
template <class... Elements>
void flatten_outputs(const std::tuple<Elements...>& outputs, std::vector<at::Tensor>& tensors) {
  std::apply([&](const auto&... output) { (flatten_outputs(output, tensors), ...); }, outputs);
}

template <class Module, size_t... Index>
bool try_forward(Module& module, const std::vector<at::Tensor>& inputs,
                 std::index_sequence<Index...>, std::vector<at::Tensor>& outputs) {
  if constexpr (requires { module.forward(inputs[Index]...); }) {
    if (inputs.size() != sizeof...(Index)) return false;
    flatten_outputs(module.forward(inputs[Index]...), outputs);
    return true;
  } else {
    return false;
  }
}

template <class Module>
Model record_module(Module& module, const std::vector<at::Tensor>& inputs,
                    const RecordOptions& options) {
  std::vector<NamedTensor> tensors;
  const auto add = [&](const auto& items, TensorRole role) {
    for (const auto& item : items) {
      NamedTensor& tensor = tensors.emplace_back();
      tensor.name = item.key();
      tensor.tensor = item.value();
      tensor.role = role;
    }
  };
  add(module.named_parameters(), TensorRole::kParameter);
  add(module.named_buffers(), TensorRole::kBuffer);
  const auto forward = [&](const std::vector<at::Tensor>& arguments) {
    std::vector<at::Tensor> outputs;
    const bool ran = try_forward(module, arguments, std::make_index_sequence<1>(), outputs) ||
                     try_forward(module, arguments, std::make_index_sequence<2>(), outputs) ||
                     try_forward(module, arguments, std::make_index_sequence<3>(), outputs) ||
                     try_forward(module, arguments, std::make_index_sequence<4>(), outputs);
    if (!ran) {
      throw Error(
          ErrorCode::kInvalidArgument,
          "the module's forward does not take " + std::to_string(arguments.size()) + " tensors", {},
          "wrap it in a module whose forward takes one to four tensors");
    }
    return outputs;
  };
  return record_function(forward, inputs, tensors, options);
}

}  // namespace detail

/// As `record_function`, for a module (or a holder of one, such as torch::nn::Sequential) whose
/// `forward` takes one to four tensors: its parameters and buffers become the model's, under their
/// dotted names.
template <class Module>
Model record(Module& module, const std::vector<at::Tensor>& inputs,
             const RecordOptions& options = {}) {
  if constexpr (requires { module.ptr(); }) {
    return record(*module, inputs, options);
  } else {
    return detail::record_module(module, inputs, options);
  }
}

}  // namespace compress
