// Finite weights, and the claims of a pass against runs of the model.

#include "compress/pass_manager_checks.h"

#include "compress/graph/shapes.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

namespace compress {
namespace {

// A sum is NaN or infinite if an element is, and costs one read without a copy; only when it is
// (it may also overflow) are the elements looked at one by one.
bool has_odd_element(const at::Tensor& tensor, bool infinite_too) {
  if (!tensor.defined() || !tensor.is_floating_point() || tensor.numel() == 0) return false;
  if (c10::isFloat8Type(tensor.scalar_type()))
    return tensor.to(at::kFloat).isnan().any().item<bool>();
  const c10::NoGradGuard no_grad;
  if (std::isfinite(tensor.sum().item<double>())) return false;
  return (infinite_too ? at::isfinite(tensor).logical_not() : at::isnan(tensor)).any().item<bool>();
}

int64_t content_version(const at::Tensor& tensor) {
  return tensor.is_inference() ? 0 : static_cast<int64_t>(tensor._version());
}

bool can_run(const Model& model) {
  return std::all_of(model.tensors().begin(), model.tensors().end(),
                     [](const NamedTensor& named) { return named.tensor.defined(); });
}

std::vector<at::Tensor> random_inputs(const Model& model) {
  // Any fixed seed does: the inputs are compared with themselves.
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{1});
  std::vector<at::Tensor> inputs = example_inputs(model);
  for (at::Tensor& input : inputs) {
    if (input.is_floating_point()) input = at::randn(input.sizes(), generator, input.options());
  }
  return inputs;
}

std::vector<at::Tensor> run_in_eval_mode(const Model& model,
                                         const std::vector<at::Tensor>& inputs) {
  const c10::NoGradGuard no_grad;
  Model copy = model.clone(false);
  copy.eval();
  return copy.forward(inputs);
}

// Rounding of float networks; a fused batch_norm moves outputs by about 1e-6 of their size.
bool nearly_equal(const at::Tensor& a, const at::Tensor& b) {
  constexpr double kRelative = 1e-3;
  if (a.numel() == 0) return true;
  const at::Tensor wide = a.to(at::kDouble);
  const double scale = std::max(wide.abs().max().item<double>(), 1e-6);
  return (wide - b.to(at::kDouble)).abs().max().item<double>() <= kRelative * scale;
}

std::vector<std::string> output_names(const Model& model) {
  std::vector<std::string> names;
  for (const Output& output : model.graph().outputs()) {
    const Value* value = output.value.value();
    if (value != nullptr && value->kind() == ValueKind::kTensor) names.push_back(output.name);
  }
  return names;
}

}  // namespace

FiniteCheck::Stamp FiniteCheck::stamp_of(const NamedTensor& named) {
  return {named.tensor.storage().getWeakStorageImpl(), named.tensor.const_data_ptr(),
          content_version(named.tensor)};
}

void FiniteCheck::accept(const NamedTensor& named) {
  seen_.insert_or_assign(named.name, stamp_of(named));
}

std::string FiniteCheck::problem(const Model& model) {
  constexpr size_t kShown = 3;
  std::vector<std::string> odd;
  for (const NamedTensor& named : model.tensors()) {
    if (!named.tensor.defined() || named.role == TensorRole::kConstant) continue;
    const Stamp stamp = stamp_of(named);
    const auto [seen, is_new] = seen_.try_emplace(named.name, stamp);
    if (!is_new && seen->second == stamp) continue;
    seen->second = stamp;
    if (has_odd_element(named.tensor, named.role == TensorRole::kParameter))
      odd.push_back(named.name);
  }
  if (odd.empty()) return "";
  const size_t more = odd.size() > kShown ? odd.size() - kShown : 0;
  odd.resize(odd.size() - more);
  return fmt::format("NaN or infinite elements in {}{}", fmt::join(odd, ", "),
                     more > 0 ? fmt::format(" and {} more", more) : "");
}

KeptClaims::KeptClaims(const Model& model) : can_run_(can_run(model)), names_(output_names(model)) {
  if (!can_run_) return;
  inputs_ = random_inputs(model);
  outputs_ = run_in_eval_mode(model, inputs_);
}

std::string KeptClaims::broken(const Model& model, Keeps keeps) const {
  if (keeps == Keeps::kNothing) return "";
  if (output_names(model) != names_) return "the model has other outputs";
  if (model.graph().inputs().size() != inputs_.size() && can_run_)
    return "the model has other inputs";
  if (!can_run_ || !can_run(model)) return "";
  const std::vector<at::Tensor> outputs = run_in_eval_mode(model, inputs_);
  for (size_t i = 0; i < outputs.size() && i < outputs_.size(); ++i) {
    const at::Tensor &before = outputs_[i], &after = outputs[i];
    if (has(keeps, Keeps::kShapes) && before.sizes() != after.sizes()) {
      return fmt::format("output {} had sizes [{}] and has [{}]", names_[i],
                         fmt::join(before.sizes(), ", "), fmt::join(after.sizes(), ", "));
    }
    if (has(keeps, Keeps::kDtypes) && before.scalar_type() != after.scalar_type()) {
      return fmt::format("output {} was {} and is {}", names_[i],
                         c10::toString(before.scalar_type()), c10::toString(after.scalar_type()));
    }
    if (has(keeps, Keeps::kOutputs) &&
        (before.sizes() != after.sizes() || !nearly_equal(before, after))) {
      return fmt::format("output {} has other values", names_[i]);
    }
  }
  return "";
}

std::vector<std::string> idle_globs(const Step& step, const std::vector<SelectorTarget>& targets) {
  std::vector<std::string> said;
  const std::unique_ptr<AnyOptions> options = step.options->clone();
  for (const Field& field : options->fields()) {
    if (field.selector() == nullptr) continue;
    for (const std::string& sentence : field.selector()->idle_globs(targets)) {
      said.push_back(fmt::format("`{}`: {}", field.name, sentence));
    }
  }
  return said;
}

}  // namespace compress
