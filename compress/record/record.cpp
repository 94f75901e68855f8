// A C++ torch::nn module becomes a Model that shares its parameters.

#include "compress/record/record.h"

#include "compress/graph/batch.h"
#include "compress/graph/functionalize.h"
#include "compress/record/linear.h"
#include "compress/record/trace.h"

#include <ATen/core/grad_mode.h>

#include <fmt/format.h>

#include <unordered_map>

namespace compress {
namespace {

// Puts the contents of the buffers back, which a forward in training mode changes.
class Buffers {
 public:
  explicit Buffers(const std::vector<NamedTensor>& tensors) {
    for (const NamedTensor& tensor : tensors) {
      if (tensor.role != TensorRole::kBuffer || !tensor.tensor.defined()) continue;
      saved_.emplace_back(tensor.tensor, tensor.tensor.detach().clone());
    }
  }
  ~Buffers() {
    const at::NoGradGuard no_grad;
    for (auto& [tensor, contents] : saved_) tensor.copy_(contents);
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> saved_;
};

void add_tensors(Model& model, Trace& trace, const std::vector<NamedTensor>& tensors) {
  std::unordered_map<const c10::TensorImpl*, std::string> first_name;
  for (const NamedTensor& tensor : tensors) {
    if (!tensor.tensor.defined()) continue;
    const auto [known, is_new] =
        first_name.try_emplace(tensor.tensor.unsafeGetTensorImpl(), tensor.name);
    if (is_new) {
      trace.bind(tensor.tensor, model.add_tensor(tensor.name, tensor.tensor, tensor.role));
    } else {
      model.add_alias(known->second, tensor.name);
    }
  }
}

void add_inputs(Model& model, Trace& trace, const std::vector<at::Tensor>& inputs,
                const RecordOptions& options) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    TensorType type;
    type.dtype = inputs[i].scalar_type();
    type.sizes.emplace(inputs[i].sizes().begin(), inputs[i].sizes().end());
    const std::string name = i < options.input_names.size() ? options.input_names[i] : "input";
    trace.bind(inputs[i], model.graph().add_input(name, std::move(type)));
  }
}

// A call takes the path of the module whose parameters it uses; C++ modules say no more.
void name_modules(Graph& graph) {
  for (Node& node : graph.nodes()) {
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) {
        if (!value->is_named_tensor() || !node.module_path.empty()) return;
        const size_t dot = value->name().rfind('.');
        if (dot != std::string::npos) node.module_path = value->name().substr(0, dot);
      });
    }
  }
}

}  // namespace

Model record_function(
    const std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>& forward,
    const std::vector<at::Tensor>& inputs, const std::vector<NamedTensor>& tensors,
    const RecordOptions& options) {
  Model model;
  {
    const at::NoGradGuard no_grad;
    const Buffers buffers(tensors);
    Trace trace(model);
    add_inputs(model, trace, inputs, options);
    add_tensors(model, trace, tensors);
    std::vector<at::Tensor> results;
    trace.watch([&] { results = forward(inputs); });
    std::vector<Output> outputs;
    for (const at::Tensor& result : results) {
      const std::string name =
          outputs.empty() ? "output" : fmt::format("output_{}", outputs.size());
      outputs.push_back({name, result.defined() ? Argument(trace.value_of(result)) : Argument()});
    }
    model.graph().set_outputs(std::move(outputs));
  }
  functionalize(model);
  restore_linear(model.graph());
  model.remove_dead();
  name_modules(model.graph());
  if (options.dynamic_batch) generalize_batch(model);
  return model;
}

}  // namespace compress
