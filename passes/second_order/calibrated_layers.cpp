// Layers one after another, each with what is known of its inputs.

#include "passes/second_order/calibrated_layers.h"

#include "compress/calibrate/layer_input.h"
#include "compress/calibrate/walk.h"
#include "compress/encoding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace compress {
namespace {

constexpr double kLeastRidge = 1e-8;  // so that a singular matrix has a solution

// Mean squares of the columns; a few samples at a time, so that patches need little memory.
at::Tensor input_power(const Node& layer, const std::vector<at::Tensor>& batches) {
  constexpr int64_t kSamples = 8;
  at::Tensor sum;
  int64_t rows = 0;
  for (const at::Tensor& batch : batches) {
    for (const at::Tensor& part : batch.split(kSamples)) {
      const at::Tensor matrix = layer_input_matrix(layer, part.to(at::kFloat));
      const at::Tensor squares = matrix.square().sum({1}, false, at::kDouble);
      sum = sum.defined() ? sum.add_(squares) : squares;
      rows += matrix.size(1);
    }
  }
  return sum / static_cast<double>(rows);
}

// The last layer's matrix: neighbours like the projections of an attention layer have one input.
class OfOneInput {
 public:
  template <class Compute>
  const at::Tensor& get(const Node& layer, const Compute& compute) {
    const bool is_linear = operator_kind(layer) == OperatorKind::kLinear;
    const std::string& input = layer_input(layer)->name();
    if (!is_linear || input != linear_input_) matrix_ = compute();
    linear_input_ = is_linear ? input : std::string();
    return matrix_;
  }

 private:
  std::string linear_input_;
  at::Tensor matrix_;
};

at::Tensor input_gram(const Node& layer, const Walk& walk) {
  Gram gram;
  for (const at::Tensor& batch : walk.at(layer_input(layer))) gram.add(layer, batch);
  return gram.mean();
}

// The model as it was before its layers were edited, run beside it.
class Original {
 public:
  Original(const Model& model, const BatchSource& batches)
      : model_(model.clone(/*deep=*/false)),
        weights_(weights(std::as_const(model_))),
        walk_(model_, batches) {}

  // Mean of z x^T, z the inputs of the layer here, x those in the edited model.
  const at::Tensor& cross_gram(const Weight& weight, const Walk& edited) {
    return grams_.get(*weight.layer(), [&] { return compute(weight, edited); });
  }

 private:
  at::Tensor compute(const Weight& weight, const Walk& edited) {
    const auto same = std::find_if(weights_.begin(), weights_.end(), [&](const Weight& other) {
      return other.name() == weight.name();
    });
    walk_.advance(same->layer());
    const std::vector<at::Tensor>& before = walk_.at(layer_input(*same->layer()));
    const std::vector<at::Tensor>& now = edited.at(layer_input(*weight.layer()));
    Gram cross;
    for (size_t i = 0; i < now.size(); ++i) cross.add(*weight.layer(), before[i], now[i]);
    return cross.mean();
  }

  const Model model_;
  const std::vector<Weight> weights_;
  Walk walk_;
  OfOneInput grams_;
};

struct What {
  LayerInputs inputs = LayerInputs::kGram;
  LayerTarget target = LayerTarget::kLayer;
  double ridge = 0;
};

void for_each_layer(Model& model, const Selector& where, PassContext& context, const What& what,
                    const LeaveAlone& leave_alone, const EditLayer& edit) {
  std::vector<Weight> selected = weights(model, where);
  std::optional<Original> original;
  if (what.target == LayerTarget::kOriginal) original.emplace(model, context.calibration());
  Walk walk(model, context.calibration());
  OfOneInput grams;
  int64_t done = 0;
  for (Weight& weight : selected) {
    context.progress(done++, static_cast<int64_t>(selected.size()));
    std::string reason = no_input_matrix(weight);
    if (reason.empty() && leave_alone) reason = leave_alone(weight);
    if (!reason.empty()) {
      context.message(fmt::format("{}: left alone, {}", weight.name(), reason));
      context.count("weights_left_alone");
      continue;
    }
    if (!context.begin(weight.name())) break;
    walk.advance(weight.layer());
    const int64_t rows = weight.output_dim();
    CalibratedLayer layer{weight, as_matrix(weight.effective(), rows).to(at::kFloat), {}, {}, {}};
    if (what.inputs == LayerInputs::kGram) {
      layer.gram = grams.get(*weight.layer(), [&] { return input_gram(*weight.layer(), walk); });
      layer.power = layer.gram.diagonal(0, 1, 2);
    } else {
      layer.power = input_power(*weight.layer(), walk.at(layer_input(*weight.layer())));
    }
    if (original) {
      layer.matrix = weight_for_inputs(layer.matrix, layer.gram, original->cross_gram(weight, walk),
                                       what.ridge);
    }
    if (weight.mask().defined()) layer.keep = as_matrix(weight.mask(), rows);
    edit(layer);
  }
}

}  // namespace

std::string no_input_matrix(const Weight& weight) {
  if (weight.kind() == OperatorKind::kEmbedding) return "an embedding looks rows up";
  if (weight.uses().size() > 1) {
    return fmt::format("{} layers share it, with inputs of their own", weight.uses().size());
  }
  if (!has_layer_input_matrix(*weight.layer())) {
    return fmt::format("the inputs of {} are not the rows of one matrix", weight.layer()->op());
  }
  return {};
}

double relative_output_error(const at::Tensor& weight, const at::Tensor& changed,
                             const at::Tensor& gram) {
  const int64_t groups = gram.size(0);
  const auto energy = [&](const at::Tensor& matrix) {
    const at::Tensor rows = matrix.to(at::kDouble).view({groups, -1, matrix.size(1)});
    return at::matmul(rows, gram).mul_(rows).sum().item<double>();
  };
  const double all = energy(weight);
  return all > 0 ? energy(weight - changed) / all : 0;
}

at::Tensor weight_for_inputs(const at::Tensor& weight, const at::Tensor& gram,
                             const at::Tensor& cross, double ridge) {
  const at::Tensor rows = weight.to(at::kDouble).view({gram.size(0), -1, weight.size(1)});
  at::Tensor system = gram.clone();
  at::Tensor diagonal = system.diagonal(0, 1, 2);
  diagonal += std::max(ridge, kLeastRidge) * diagonal.mean({1}, /*keepdim=*/true).clamp_min(1e-30);
  const at::Tensor change =
      at::linalg_solve(system, at::matmul(rows, cross - gram), /*left=*/false);
  return (rows + change).to(weight.scalar_type()).view(weight.sizes());
}

void for_each_calibrated_layer(Model& model, const Selector& where, PassContext& context,
                               LayerInputs inputs, const LeaveAlone& leave_alone,
                               const EditLayer& edit) {
  for_each_layer(model, where, context, {.inputs = inputs}, leave_alone, edit);
}

void for_each_calibrated_layer(Model& model, const Selector& where, PassContext& context,
                               LayerTarget target, double ridge, const LeaveAlone& leave_alone,
                               const EditLayer& edit) {
  for_each_layer(model, where, context, {.target = target, .ridge = ridge}, leave_alone, edit);
}

bool store_matrix(Weight& weight, const at::Tensor& matrix) {
  const at::Tensor elements =
      from_matrix(matrix, weight.sizes(), weight.output_dim()).to(weight.dtype()).contiguous();
  if (at::equal(elements, weight.effective())) return false;
  weight.set_stored(elements);
  return true;
}

int64_t mask_matrix(Weight& weight, const at::Tensor& keep) {
  return weight.set_mask(from_matrix(keep, weight.sizes(), weight.output_dim()).contiguous());
}

}  // namespace compress
