// Optimizer steps by LibTorch's fused kernels, one call for all parameters that share rates.

#include "compress/train/optimizer.h"

#include "compress/error.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <set>

namespace compress {
namespace {

// What one call of a fused kernel takes; the lists are parallel, and unused ones empty.
struct KernelCall {
  double lr_scale, weight_decay;
  bool is_first_step;
  std::vector<at::Tensor> parameters, gradients, first, second, steps;

  bool fits(const KernelCall& one) const {
    const at::Tensor &a = parameters.front(), &b = one.parameters.front();
    return lr_scale == one.lr_scale && weight_decay == one.weight_decay &&
           is_first_step == one.is_first_step && a.scalar_type() == b.scalar_type() &&
           a.device() == b.device();
  }
  void append(const KernelCall& one) {
    parameters.insert(parameters.end(), one.parameters.begin(), one.parameters.end());
    gradients.insert(gradients.end(), one.gradients.begin(), one.gradients.end());
    first.insert(first.end(), one.first.begin(), one.first.end());
    second.insert(second.end(), one.second.begin(), one.second.end());
    steps.insert(steps.end(), one.steps.begin(), one.steps.end());
  }
};

void run(const SgdOptions& options, double factor, KernelCall& call) {
  at::_fused_sgd_(call.parameters, call.gradients, call.first, call.weight_decay, options.momentum,
                  options.lr * call.lr_scale * factor, options.dampening, options.nesterov,
                  /*maximize=*/false, call.is_first_step);
}

// The kernels want the number of the step that is taken.
void count_step(std::vector<at::Tensor>& steps) {
  if (steps.front().is_cuda()) return at::_foreach_add_(steps, 1);
  for (at::Tensor& step : steps) *step.mutable_data_ptr<float>() += 1;
}

void run(const AdamOptions& options, double factor, KernelCall& call) {
  count_step(call.steps);
  at::_fused_adam_(call.parameters, call.gradients, call.first, call.second, {}, call.steps,
                   options.lr * call.lr_scale * factor, options.beta1, options.beta2,
                   call.weight_decay, options.eps, /*amsgrad=*/false, /*maximize=*/false);
}

void run(const AdamWOptions& options, double factor, KernelCall& call) {
  count_step(call.steps);
  at::_fused_adamw_(call.parameters, call.gradients, call.first, call.second, {}, call.steps,
                    options.lr * call.lr_scale * factor, options.beta1, options.beta2,
                    call.weight_decay, options.eps, /*amsgrad=*/false, /*maximize=*/false);
}

// The strides of dimensions of size 1 mean nothing.
bool same_strides(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t i = 0; i < a.dim(); ++i) {
    if (a.size(i) != 1 && a.stride(i) != b.stride(i)) return false;
  }
  return true;
}

// The CPU kernels walk all tensors as flat arrays, whatever their strides: all must lie in memory
// like `parameter`.
at::Tensor laid_out_like(const at::Tensor& parameter, const at::Tensor& tensor) {
  return same_strides(parameter, tensor) ? tensor : at::empty_like(parameter).copy_(tensor);
}

// The gradient, made dense in place; undefined if there is none.
at::Tensor gradient_of(const OptimizedParameter& parameter) {
  at::Tensor& gradient = parameter.tensor.mutable_grad();
  if (gradient.defined() && gradient.layout() != at::kStrided) gradient = gradient.to_dense();
  return gradient;
}

std::vector<at::Tensor> gradients_of(const std::vector<OptimizedParameter>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const OptimizedParameter& parameter : parameters) {
    at::Tensor gradient = gradient_of(parameter);
    if (gradient.defined()) gradients.push_back(std::move(gradient));
  }
  return gradients;
}

// A norm of norms, as clip_grad_norm_ computes it; but in f32 where a gradient has fewer bits.
at::Tensor total_norm(const std::vector<at::Tensor>& gradients) {
  std::vector<at::Tensor> norms;
  for (const at::Tensor& gradient : gradients) {
    const auto dtype = gradient.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    norms.push_back(at::linalg_vector_norm(gradient, 2, {}, /*keepdim=*/false, dtype)
                        .to(gradients.front().device()));
  }
  return at::linalg_vector_norm(at::stack(norms), 2);
}

const char* const kNesterovProblem = "nesterov momentum requires a momentum and zero dampening";

// At 1 a mean would never leave its start, and the correction of its bias divides by 0.
void require_decays(double beta1, double beta2, Problems& problems) {
  if (beta1 >= 1) problems.add("beta1", "it must be less than 1");
  if (beta2 >= 1) problems.add("beta2", "it must be less than 1");
}

}  // namespace

void SgdOptions::validate(Problems& problems) const {
  if (!nesterov || (momentum > 0 && dampening == 0)) return;
  problems.add("nesterov", kNesterovProblem,
               momentum > 0 ? "set dampening to 0" : "set momentum, for example to 0.9");
}

void AdamOptions::validate(Problems& problems) const { require_decays(beta1, beta2, problems); }
void AdamWOptions::validate(Problems& problems) const { require_decays(beta1, beta2, problems); }

Optimizer::Optimizer(OptimizerOptions options, std::vector<OptimizedParameter> parameters)
    : options_(options), parameters_(std::move(parameters)), moments_(parameters_.size()) {
  check_options(options_);
  std::set<std::string_view> names;
  for (const OptimizedParameter& parameter : parameters_) {
    const at::Tensor& tensor = parameter.tensor;
    const char* problem = nullptr;
    if (!names.insert(parameter.name).second) problem = "there are two parameters of this name";
    if (!tensor.defined() || !tensor.is_floating_point() || !tensor.is_leaf() ||
        !tensor.requires_grad()) {
      problem = "it is not a floating-point leaf that requires gradients";
    }
    if (problem) throw Error(ErrorCode::kInvalidArgument, problem, parameter.name);
  }
}

double Optimizer::learning_rate() const {
  return std::visit([](const auto& options) { return options.lr; }, options_.value);
}

// Makes the state of a parameter that has none; whether it did.
bool Optimizer::start(const at::Tensor& parameter, Moments& moments) const {
  if (moments.first.defined()) return false;
  if (const SgdOptions* sgd = options_.get<SgdOptions>()) {
    if (sgd->momentum == 0) return false;
    moments.first = at::empty_like(parameter);  // the first step writes the gradient into it
    return true;
  }
  moments.first = at::zeros_like(parameter);
  moments.second = at::zeros_like(parameter);
  moments.steps = at::zeros({}, parameter.options().dtype(at::kFloat));
  return true;
}

void Optimizer::step(double factor) {
  const at::NoGradGuard no_grad;
  const bool is_sgd = options_.get<SgdOptions>() != nullptr;
  std::vector<KernelCall> calls;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // of a parameter with holes, dense
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const OptimizedParameter& parameter = parameters_[i];
    const at::Tensor gradient = gradient_of(parameter);
    if (!gradient.defined()) continue;
    at::Tensor dense = parameter.tensor;
    if (!dense.is_non_overlapping_and_dense()) {
      dense = dense.clone();
      copies.emplace_back(parameter.tensor, dense);
    }
    Moments& moments = moments_[i];
    const double weight_decay =
        parameter.weight_decay >= 0
            ? parameter.weight_decay
            : std::visit([](const auto& options) { return options.weight_decay; }, options_.value);
    KernelCall one{parameter.lr_scale, weight_decay, start(parameter.tensor, moments) && is_sgd};
    one.parameters = {dense};
    one.gradients = {laid_out_like(dense, gradient)};
    if (moments.first.defined()) one.first = {moments.first};
    if (moments.second.defined()) one.second = {moments.second};
    if (moments.steps.defined()) one.steps = {moments.steps};
    const auto call = std::find_if(calls.begin(), calls.end(),
                                   [&](const KernelCall& known) { return known.fits(one); });
    if (call != calls.end()) {
      call->append(one);
    } else {
      calls.push_back(std::move(one));
    }
  }
  for (KernelCall& call : calls) {
    std::visit([&](const auto& options) { run(options, factor, call); }, options_.value);
    // The kernels do not say that they wrote, and an interpreter keeps what was computed from
    // tensors whose version stays.
    for (const at::Tensor& tensor : call.parameters) tensor.unsafeGetTensorImpl()->bump_version();
  }
  for (auto& [parameter, dense] : copies) parameter.copy_(dense);
}

void Optimizer::zero_grad() {
  for (const OptimizedParameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
}

double Optimizer::gradient_norm() const {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> gradients = gradients_of(parameters_);
  return gradients.empty() ? 0 : total_norm(gradients).item<double>();
}

double Optimizer::clip(double max_norm) {
  COMPRESS_CHECK(max_norm >= 0, "a norm is not negative");
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> gradients = gradients_of(parameters_);
  if (gradients.empty()) return 0;
  const at::Tensor norm = total_norm(gradients);
  const at::Tensor scale = norm.add(1e-6).reciprocal().mul(max_norm).clamp_max(1);
  if (scale.item<double>() != 1) {  // true of NaN
    for (const at::Tensor& gradient : gradients) gradient.mul_(scale.to(gradient.device()));
  }
  return norm.item<double>();
}

}  // namespace compress
