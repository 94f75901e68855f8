// Optimizers over LibTorch's fused kernels, with state that has names.
//
// State belongs to a parameter's name, not to its tensor: it can be saved, and it follows a
// parameter whose tensor is replaced or sliced in the middle of a run.

#pragma once

#include "compress/options_nested.h"
#include "compress/selector.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

class Model;

/// Stochastic gradient descent as torch.optim.SGD defines it (Sutskever et al., ICML 2013, for the
/// momentum; weight decay is added to the gradient).
struct SgdOptions {
  static constexpr std::string_view kName = "sgd";
  double lr = 0.1;
  double momentum = 0.9;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;

  template <class Visitor>
  void visit(Visitor& field) {
    field("lr", lr, "Learning rate, before the schedule's factor.").at_least(0);
    field("momentum", momentum, "Share of the last update that is kept.").range(0.0, 1.0);
    field("dampening", dampening, "What the gradient loses on its way into the momentum.")
        .range(0.0, 1.0);
    field("weight_decay", weight_decay, "Added to the gradient, times the parameter.").at_least(0);
    field("nesterov", nesterov, "Nesterov's momentum; needs momentum and no dampening.");
  }
  void validate(Problems& problems) const;
};

/// Adam (Kingma & Ba, ICLR 2015, algorithm 1); weight decay is added to the gradient.
struct AdamOptions {
  static constexpr std::string_view kName = "adam";
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("lr", lr, "Learning rate, before the schedule's factor.").at_least(0);
    field("beta1", beta1, "Decay of the mean of gradients.").range(0.0, 1.0);
    field("beta2", beta2, "Decay of the mean of squared gradients.").range(0.0, 1.0);
    field("eps", eps, "Added to the denominator.").at_least(0);
    field("weight_decay", weight_decay, "Added to the gradient, times the parameter.").at_least(0);
  }
  void validate(Problems& problems) const;
};

/// Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, algorithm 2).
struct AdamWOptions {
  static constexpr std::string_view kName = "adamw";
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;

  template <class Visitor>
  void visit(Visitor& field) {
    field("lr", lr, "Learning rate, before the schedule's factor.").at_least(0);
    field("beta1", beta1, "Decay of the mean of gradients.").range(0.0, 1.0);
    field("beta2", beta2, "Decay of the mean of squared gradients.").range(0.0, 1.0);
    field("eps", eps, "Added to the denominator.").at_least(0);
    field("weight_decay", weight_decay, "The parameter shrinks by lr times this.").at_least(0);
  }
  void validate(Problems& problems) const;
};

using OptimizerOptions = OneOf<SgdOptions, AdamOptions, AdamWOptions>;

/// What some parameters do otherwise than the rest. The first group that matches counts.
struct ParameterGroupOptions {
  using IsOptions = void;
  Selector where;
  double lr_scale = 1;
  double weight_decay = -1;
  bool freeze = false;

  template <class Visitor>
  void visit(Visitor& field) {
    field("where", where, "Which parameters: by name, kind of their layer, number of elements.");
    field("lr_scale", lr_scale, "Factor on the learning rate.").at_least(0);
    field("weight_decay", weight_decay, "In place of the optimizer's; -1: the optimizer's.")
        .at_least(-1);
    field("freeze", freeze, "Whether they stay as they are.");
  }
  void validate(Problems& problems) const;
};

/// What a selector of parameters looks at: every floating-point parameter of the model, in the
/// model's order, with the module path and the kind of the first layer that uses it (that is not an
/// embedding, where there is a choice, as of a `Weight`). Masks, decodings and whatever else is
/// computed from named tensors alone may lie between the two. Parameters that nothing uses are of
/// kind kOther.
std::vector<SelectorTarget> parameter_targets(const Model& model);

/// A parameter under optimisation.
struct OptimizedParameter {
  std::string name;
  at::Tensor tensor;  ///< a leaf that requires gradients
  double lr_scale = 1;
  double weight_decay = -1;  ///< -1: the optimizer's
};

/// The floating-point parameters of a model, ties once, with what their groups say; frozen ones are
/// left out. The tensors are the model's own: they get `requires_grad`, and frozen ones lose it, so
/// that nothing is computed for them. Throws Error(kInvalidArgument) at `where` + "/<i>/where" if a
/// group matches nothing, and at a parameter's name if it was computed from other tensors.
std::vector<OptimizedParameter> optimized_parameters(
    const Model& model, const std::vector<ParameterGroupOptions>& groups, const std::string& where);

/// One optimizer over named parameters, on CPU or CUDA. Gradients may be sparse or laid out in
/// memory otherwise than their parameters.
class Optimizer {
 public:
  /// Throws Error(kInvalidArgument) for options out of range, a name that comes twice, and a tensor
  /// that is not a floating-point leaf that requires gradients.
  Optimizer(OptimizerOptions options, std::vector<OptimizedParameter> parameters);

  /// One step at `factor` times the learning rates. Parameters without a gradient stay, and so does
  /// their state; whoever gets a gradient late starts then, as on its first step.
  void step(double factor);
  /// Drops the gradients (they become undefined).
  void zero_grad();
  /// The 2-norm over the gradients of all parameters; 0 if there are none.
  double gradient_norm() const;
  /// Scales all gradients so that their norm is at most `max_norm` (torch's clip_grad_norm_);
  /// returns the norm before. If that is not finite, neither are the gradients afterwards.
  double clip(double max_norm);

  const std::vector<OptimizedParameter>& parameters() const { return parameters_; }
  /// The learning rate of the options, before factor and scale.
  double learning_rate() const;

  /// The state tensors of a parameter that have its sizes (momentum; first and second moments), to
  /// be edited in place; empty before the first step. Throws Error(kInvalidArgument) for an unknown
  /// name, here and below.
  std::vector<at::Tensor> moments(std::string_view name) const;
  /// Puts another tensor in the place of a parameter's and its moments: `moment(old)` gives the new
  /// state from the old, of the new sizes. For structural changes in mid-training:
  /// `optimizer.replace(name, sliced, [&](const at::Tensor& m) { return m.index_select(0, kept);
  /// })`. Name, rates and the count of steps stay; `tensor` must be a leaf and gets
  /// `requires_grad`.
  void replace(std::string_view name, at::Tensor tensor,
               const std::function<at::Tensor(const at::Tensor&)>& moment);

  /// A copy of all state, to be saved: `<parameter>/momentum` (SGD with momentum) or
  /// `<parameter>/exp_avg`, `/exp_avg_sq`, `/step` (0-dim f32). Nothing of parameters that had no
  /// step.
  std::map<std::string, at::Tensor> state() const;
  /// Takes a saved state in the place of the present one. Throws Error(kBadFile) naming the entry
  /// that is missing, unknown, or of other sizes or dtype; the present state then stays.
  void load_state(const std::map<std::string, at::Tensor>& state);

 private:
  struct Moments {
    at::Tensor first, second;  ///< momentum or exp_avg; exp_avg_sq; undefined before the first step
    at::Tensor steps;          ///< 0-dim float: the steps taken (Adam)
  };
  struct Entry {
    std::string_view suffix;  // of its key in `state()`
    at::Tensor Moments::*member;
  };
  std::vector<Entry> entries() const;  // those that this optimizer keeps
  size_t index_of(std::string_view name) const;
  bool start(const at::Tensor& parameter, Moments& moments) const;

  OptimizerOptions options_;
  std::vector<OptimizedParameter> parameters_;
  std::vector<Moments> moments_;  // one for each parameter
};

}  // namespace compress
