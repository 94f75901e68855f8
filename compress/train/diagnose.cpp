// Where a training went wrong.

#include "compress/train/diagnose.h"

#include "compress/graph/interpreter.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/isfinite.h>

#include <fmt/format.h>

namespace compress {
namespace {

bool finite(const at::Tensor& tensor) {
  return !tensor.is_floating_point() || at::isfinite(tensor).all().item<bool>();
}

}  // namespace

std::string first_not_finite(const Model& model, const std::vector<at::Tensor>& inputs) {
  const at::NoGradGuard no_grad;
  for (const NamedTensor& named : model.tensors()) {
    if (named.role == TensorRole::kParameter && !finite(named.tensor)) {
      return fmt::format("the parameter {} has elements that are", named.name);
    }
  }
  for (const at::Tensor& input : inputs) {
    if (!finite(input)) return "the input has elements that are";
  }
  std::string found;
  model.interpreter().run(inputs, [&](const Value& value, const c10::IValue& computed) {
    if (!found.empty() || !computed.isTensor() || value.producer() == nullptr) return;
    if (finite(computed.toTensor())) return;
    const std::string& path = value.producer()->module_path;
    found = fmt::format("the output of {}{} is the first value that is", value.name(),
                        path.empty() ? "" : fmt::format(" ({})", path));
  });
  return found.empty() ? "nothing before the loss is" : found;
}

}  // namespace compress
