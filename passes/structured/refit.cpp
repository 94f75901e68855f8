// Least squares for the layers behind removed channels.

#include "passes/structured/refit.h"

#include "compress/calibrate/layer_input.h"
#include "compress/calibrate/walk.h"
#include "compress/encoding.h"
#include "compress/error.h"
#include "compress/weight.h"
#include "passes/batch_norm_node.h"
#include "passes/layer_bias.h"
#include "passes/second_order/calibrated_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

namespace compress {
namespace {

constexpr int64_t kSamplesAtOnce = 16;  // patches of a convolution are many times its input
// Rows for each column: neighbouring patches are alike, so of more only every n-th is taken.
constexpr int64_t kRowsAColumn = 100;

InputMoments measure(const Node& layer, const std::vector<at::Tensor>& inputs, const Node& before,
                     const std::vector<at::Tensor>& inputs_before) {
  InputMoments sum;
  int64_t rows = 0, samples = 0, offset = 0;
  for (const at::Tensor& batch : inputs) samples += batch.size(0);
  const auto add = [](at::Tensor& to, const at::Tensor& term) {
    to = to.defined() ? to.add_(term.to(at::kDouble)) : term.to(at::kDouble);
  };
  for (size_t b = 0; b < inputs.size(); ++b) {
    const int64_t count = inputs[b].size(0);
    for (int64_t first = 0; first < count; first += kSamplesAtOnce) {
      const int64_t some = std::min(kSamplesAtOnce, count - first);
      at::Tensor x = layer_input_matrix(layer, inputs[b].narrow(0, first, some))[0];
      at::Tensor z = layer_input_matrix(before, inputs_before[b].narrow(0, first, some))[0];
      const int64_t step =
          std::max<int64_t>(1, x.size(0) / some * samples / (kRowsAColumn * z.size(1)));
      const int64_t start = (step - offset % step) % step;
      offset += x.size(0);
      if (start >= x.size(0)) continue;
      x = x.slice(0, start, c10::nullopt, step);
      z = z.slice(0, start, c10::nullopt, step);
      add(sum.now, x.t().matmul(x));
      add(sum.cross, x.t().matmul(z));
      add(sum.mean_now, x.sum(0));
      add(sum.mean_before, z.sum(0));
      rows += x.size(0);
    }
  }
  for (at::Tensor* each : {&sum.now, &sum.cross, &sum.mean_now, &sum.mean_before}) {
    each->div_(static_cast<double>(rows));
  }
  return sum;
}

// E x x^T and E x z^T, or, where a bias takes up the means, the covariances.
std::pair<at::Tensor, at::Tensor> products(const InputMoments& moments, bool centered) {
  if (!centered) return {moments.now, moments.cross};
  return {moments.now - at::outer(moments.mean_now, moments.mean_now),
          moments.cross - at::outer(moments.mean_now, moments.mean_before)};
}

// The batch norm that alone hears the layer, in eval mode.
Node* norm_behind(const Model& model, const UseMap& uses, const Node& layer) {
  const auto& users = uses.of(layer.output());
  if (users.size() != 1 || users[0].node == nullptr) return nullptr;
  Node* norm = users[0].node;
  if (!is_batch_norm(*norm) || is_training(*norm)) return nullptr;
  return norm_tensor(model, *norm, "running_mean").defined() ? norm : nullptr;
}

class Compensator {
 public:
  Compensator(Model& model, const Model& original, const std::map<std::string, KeptDims>& kept,
              Compensation how, double ridge, const BatchSource& batches)
      : model_(model),
        original_(original),
        kept_(kept),
        how_(how),
        ridge_(ridge),
        before_(weights(original)),
        now_(model, batches),
        was_(original, batches) {}

  int64_t run() {
    const c10::NoGradGuard no_grad;
    bool heard = false;  // whether what enters the layers differs by now
    int64_t changed = 0;
    for (Weight& weight : weights(model_)) {
      const Weight* before = find(weight);
      if (before == nullptr) continue;
      const bool inputs_cut = weight.sizes().size() > 1 && weight.sizes()[weight.input_dim()] !=
                                                               before->sizes()[before->input_dim()];
      heard = heard || inputs_cut;
      if (!heard || !can_change(weight)) continue;
      change(weight, *before);
      ++changed;
    }
    return changed;
  }

 private:
  const Weight* find(const Weight& weight) const {
    for (const Weight& other : before_) {
      if (other.name() == weight.name() && other.stored() != nullptr) return &other;
    }
    return nullptr;
  }

  bool can_change(const Weight& weight) const {
    return weight.stored() != nullptr && !weight.mask().defined() && weight.groups() == 1 &&
           kept_.contains(weight.name()) && no_input_matrix(weight).empty();
  }

  void change(Weight& weight, const Weight& before) {
    Node* layer = weight.layer();
    now_.advance(layer);
    was_.advance(before.layer());
    const KeptDims& kept = kept_.at(weight.name());
    const at::Tensor rows = at::tensor(kept.outputs, at::kLong);
    const InputMoments moments = measure(*layer, now_.at(layer_input(*layer)), *before.layer(),
                                         was_.at(layer_input(*before.layer())));
    const at::Tensor target =
        as_matrix(before.effective(), before.output_dim()).to(at::kDouble).index_select(0, rows);
    const at::Tensor start = as_matrix(weight.effective(), weight.output_dim()).to(at::kDouble);
    const bool has_bias = has_bias_argument(*layer) && bias_of(model_, *layer).defined() &&
                          bias_obstacle(model_, *layer).empty();
    const UseMap uses(model_.graph());
    Node* norm = has_bias ? nullptr : norm_behind(model_, uses, *layer);
    const int64_t each = start.size(1) / static_cast<int64_t>(kept.inputs.size());
    const at::Tensor fitted =
        how_ == Compensation::kMerge
            ? merged(moments, target, start, kept.inputs, each, has_bias || norm != nullptr)
            : refitted(moments, target, start, ridge_, has_bias || norm != nullptr);
    const at::Tensor missing = target.matmul(moments.mean_before) - fitted.matmul(moments.mean_now);
    at::Tensor elements =
        from_matrix(fitted.to(weight.dtype()), weight.sizes(), weight.output_dim());
    model_.set_tensor(weight.stored()->name,
                      elements.set_requires_grad(weight.stored()->tensor.requires_grad()));
    if (has_bias) {
      const at::Tensor bias = bias_of(original_, *before.layer()).index_select(0, rows);
      set_bias(model_, layer, weight.name(), (bias.to(at::kDouble) + missing).to(bias.dtype()));
    } else if (norm != nullptr) {
      const std::string& name = norm_value(*norm, "running_mean")->name();
      const at::Tensor mean = original_.tensor(name).index_select(0, rows);
      model_.set_tensor(name, (mean.to(at::kDouble) - missing).to(mean.scalar_type()));
    }
  }

  Model& model_;
  const Model& original_;
  const std::map<std::string, KeptDims>& kept_;
  Compensation how_;
  double ridge_;
  const std::vector<Weight> before_;
  Walk now_, was_;
};

}  // namespace

at::Tensor refitted(const InputMoments& moments, const at::Tensor& target, const at::Tensor& start,
                    double ridge, bool centered) {
  const auto [now, cross] = products(moments, centered);
  const double damping = ridge * std::max(now.diagonal().mean().item<double>(), 1e-30);
  const at::Tensor system = now + damping * at::eye(now.size(0), now.options());
  const at::Tensor right = cross.matmul(target.t()) + damping * start.t();
  return at::linalg_solve(system, right).t().contiguous();
}

at::Tensor merged(const InputMoments& moments, const at::Tensor& target, const at::Tensor& start,
                  const std::vector<int64_t>& kept, int64_t each, bool centered) {
  const auto [now, cross] = products(moments, centered);
  const int64_t channels = target.size(1) / each, left = start.size(1) / each;
  // Inner products of channels: the sums over a kernel's places.
  const at::Tensor inner = cross.view({left, each, channels, each}).diagonal(0, 1, 3).sum(2);
  const at::Tensor powers = now.diagonal().view({left, each}).sum(1).clamp_min(1e-30);
  const at::Tensor explained = inner.square() / powers.unsqueeze(1);  // [left, channels]
  at::Tensor result = start.clone().view({-1, left, each});
  const at::Tensor blocks = target.view({-1, channels, each});
  for (int64_t channel = 0; channel < channels; ++channel) {
    if (std::find(kept.begin(), kept.end(), channel) != kept.end()) continue;
    const auto best = explained.select(1, channel).argmax().item<int64_t>();
    const at::Tensor share = inner[best][channel] / powers[best];
    result.select(1, best).add_(blocks.select(1, channel) * share);
  }
  return result.view({-1, left * each});
}

int64_t compensate(Model& model, const Model& original, const std::map<std::string, KeptDims>& kept,
                   Compensation how, double ridge, const BatchSource& batches) {
  if (how == Compensation::kNone) return 0;
  return Compensator(model, original, kept, how, ridge, batches).run();
}

}  // namespace compress
