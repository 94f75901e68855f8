// A mini-batch is cut into a fixed number of parts, whose gradients are added up in order.

#include "passes/quantize/unit_trainer.h"

#include "compress/error.h"
#include "compress/graph/extract.h"
#include "compress/weight.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <unordered_set>
#include <utility>

namespace compress {
namespace {

constexpr int64_t kParts = 4;         // of a mini-batch; a constant, so that sums do not vary
constexpr double kStepPower = 2.4;    // of the loss that steps alone are learned by
constexpr double kLeastStep = 1e-8;   // a step stays positive
constexpr double kLeastSlope = 1e-8;  // of predictions; less is rounding errors

std::string keep_name(const RoundedActivation& activation) { return activation.value + "_keep"; }
std::string step_name(const RoundedActivation& activation) { return activation.value + "_step"; }

// Puts the rounding in front of the layers that read the value.
void round_activation(Model& unit, const RoundedActivation& activation, bool some) {
  Graph& graph = unit.graph();
  Value* value = graph.find(activation.value);
  Node* first = nullptr;
  std::unordered_set<const Node*> layers;
  for (const std::string& output : activation.layers) layers.insert(graph.find(output)->producer());
  for (Node& node : graph.nodes()) {
    if (layers.contains(&node) && first == nullptr) first = &node;
  }
  Value* step = unit.add_tensor(step_name(activation), activation.step, TensorRole::kParameter);
  Value* zero = unit.add_tensor(activation.value + "_zero",
                                at::full({1}, static_cast<double>(activation.zero_point)),
                                TensorRole::kBuffer);
  Graph::Call call{"aten::_fake_quantize_learnable_per_tensor_affine",
                   {value, step, zero, 0, (int64_t{1} << activation.bits) - 1, 1.0},
                   {},
                   {},
                   1,
                   {}};
  Value* rounded = graph.insert(first, std::move(call))->output();
  if (some) {
    Value* keep =
        unit.add_tensor(keep_name(activation), at::zeros({1}, at::kBool), TensorRole::kBuffer);
    rounded =
        graph.insert(first, {"aten::where.self", {keep, value, rounded}, {}, {}, 1, {}})->output();
  }
  const UseMap uses(graph);
  for (const Use& use : uses.of(value)) {
    if (layers.contains(use.node)) graph.set_argument(use.node, use.index, rounded);
  }
}

at::Tensor chosen(double share, at::IntArrayRef sizes, at::Generator& generator) {
  return at::empty(sizes, at::kBool).bernoulli_(share, generator);
}

// Rows of a permutation of all samples that starts anew when it is used up.
class Shuffled {
 public:
  Shuffled(int64_t count, at::Generator generator)
      : count_(count), generator_(std::move(generator)) {}

  at::Tensor next(int64_t size) {
    size = std::min(size, count_);
    if (!order_.defined() || at_ + size > count_) {
      order_ = at::randperm(count_, generator_, at::kLong);
      at_ = 0;
    }
    at_ += size;
    return order_.narrow(0, at_ - size, size);
  }

 private:
  int64_t count_, at_ = 0;
  at::Generator generator_;
  at::Tensor order_;
};

double half_cosine(int64_t step, int64_t steps) {
  return 0.5 *
         (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(steps)));
}

AdamOptions adam(double rate) {
  AdamOptions options;
  options.lr = rate;
  return options;
}

}  // namespace

Model extract_unit(const Model& model, const ReconstructionUnit& unit) {
  Model part = extract(model, unit.inputs, {unit.output});
  for (Weight& weight : weights(part)) weight.replace(weight.effective().clone());
  return part;
}

// A part of a mini-batch on its way.
struct UnitTrainer::Part {
  size_t worker;
  at::Tensor rows;
  double batch;  // samples of the whole mini-batch
};

UnitTrainer::UnitTrainer(const Model& unit, std::vector<RoundedWeight> weights,
                         std::vector<RoundedActivation> activations, UnitSamples samples,
                         int64_t channel_dim, const Reconstruction& settings,
                         SerialWorkers& workers)
    : unit_(unit),
      weights_(std::move(weights)),
      activations_(std::move(activations)),
      samples_(std::move(samples)),
      channel_dim_(channel_dim),
      settings_(settings),
      workers_(workers) {
  for (const RoundedWeight& weight : weights_) codes_.push_back(weight.nearest());
}

void UnitTrainer::predict_with(const Model& suffix, std::vector<at::Tensor> beside) {
  for (size_t i = 0; i < workers_.size(); ++i) suffixes_.push_back(suffix.clone(false));
  beside_ = std::move(beside);
}

void UnitTrainer::train_bias(const std::string& tensor) {
  biases_[tensor] = unit_.tensor(tensor).detach().clone().set_requires_grad(true);
}

int64_t UnitTrainer::steps(const Reconstruction& settings, bool rounds_activations) {
  return settings.iterations + (rounds_activations ? settings.step_iterations : 0);
}

UnitOutcome UnitTrainer::train(const Generators& generators, const Progress& progress) {
  UnitOutcome outcome;
  const auto take = [&] {
    outcome.codes = codes_;
    outcome.steps.clear();
    for (const RoundedActivation& activation : activations_) {
      outcome.steps.push_back(activation.step.item<double>());
    }
  };
  take();
  if (settings_.loss == OutputLoss::kFisher) weigh_outputs();
  outcome.error = outcome.error_nearest = error();
  train_weights(generators, progress);
  if (!activations_.empty() && settings_.step_iterations > 0) train_steps(generators, progress);
  outcome.undecided = undecided_;
  const double learned = error();
  outcome.improved = learned <= outcome.error_nearest;
  if (!outcome.improved) return outcome;
  outcome.error = learned;
  take();
  for (const auto& [name, bias] : biases_) outcome.biases[name] = bias.detach().clone();
  return outcome;
}

void UnitTrainer::make_models(Rounding rounding) {
  models_.clear();
  for (size_t i = 0; i < workers_.size(); ++i) {
    Model& model = models_.emplace_back(unit_.clone(false));
    if (rounding == Rounding::kNone) continue;
    for (const RoundedActivation& activation : activations_) {
      round_activation(model, activation, rounding == Rounding::kSome);
    }
  }
  for (const auto& [name, bias] : biases_) set(name, bias);
}

void UnitTrainer::set(const std::string& name, const at::Tensor& tensor) {
  for (Model& model : models_) model.set_tensor(name, tensor);
}

void UnitTrainer::set_weights(const std::vector<QuantizedTensor>& codes) {
  for (size_t i = 0; i < weights_.size(); ++i) set(weights_[i].name, dequantize(codes[i]));
}

void UnitTrainer::train_weights(const Generators& generators, const Progress& progress) {
  const bool joint = !activations_.empty() && settings_.step_iterations == 0;
  make_models(!joint ? Rounding::kNone : settings_.drop > 0 ? Rounding::kSome : Rounding::kAll);
  std::vector<std::unique_ptr<WeightVariable>> variables;
  std::vector<OptimizedParameter> moved, stepped;
  for (const RoundedWeight& weight : weights_) {
    variables.push_back(settings_.free_weights ? free_variable(weight, settings_.scale_rate)
                                               : rounding_variable(weight));
    for (const OptimizedParameter& parameter : variables.back()->parameters()) {
      moved.push_back(parameter);
    }
  }
  std::vector<at::Tensor> direct;  // leaves of the unit that are variables themselves
  for (const auto& [name, bias] : biases_) {
    moved.push_back({name, bias, settings_.bias_rate / settings_.rate});
    direct.push_back(bias);
  }
  for (const RoundedActivation& activation : activations_) {
    if (!joint) break;
    stepped.push_back({activation.value, activation.step});
    direct.push_back(activation.step);
  }
  Optimizer optimizer(adam(settings_.rate), moved),
      step_optimizer(adam(settings_.step_rate), stepped);

  Shuffled rows(samples_.count(), generators("order"));
  std::vector<at::Generator> parts;
  for (int64_t i = 0; i < kParts; ++i) parts.push_back(generators("part " + std::to_string(i)));
  const Loss loss{2, settings_.drop > 0, settings_.prediction > 0};
  for (int64_t step = 0; step < settings_.iterations; ++step) {
    std::vector<at::Tensor> roots, leaves;
    for (size_t i = 0; i < variables.size(); ++i) {
      roots.push_back(variables[i]->effective());
      leaves.push_back(roots.back().detach().set_requires_grad(true));
      set(weights_[i].name, leaves.back());
    }
    leaves.insert(leaves.end(), direct.begin(), direct.end());
    std::vector<at::Tensor> slopes =
        gradients(rows.next(settings_.batch_size), loss, leaves, parts);
    for (size_t i = 0; i < direct.size(); ++i) {
      direct[i].mutable_grad() = slopes[variables.size() + i];
    }
    slopes.resize(variables.size());
    if (settings_.schedule.is_on(step, settings_.iterations)) {
      const double beta = settings_.schedule.beta(step, settings_.iterations);
      for (const auto& one : variables) {
        const at::Tensor penalty = one->penalty(beta);
        if (!penalty.defined()) continue;
        roots.push_back(penalty);
        slopes.push_back(at::full({}, settings_.penalty));
      }
    }
    torch::autograd::backward(roots, slopes);
    optimizer.step(1);
    optimizer.zero_grad();
    step_optimizer.step(half_cosine(step, settings_.iterations));
    step_optimizer.zero_grad();
    const at::NoGradGuard no_grad;
    for (const RoundedActivation& activation : activations_) {
      at::Tensor(activation.step).clamp_min_(kLeastStep);
    }
    progress(step + 1);
  }
  undecided_ = 0;
  for (size_t i = 0; i < variables.size(); ++i) {
    codes_[i] = variables[i]->result();
    undecided_ += variables[i]->undecided();
  }
}

// The weights stay; BRECQ's second stage.
void UnitTrainer::train_steps(const Generators& generators, const Progress& progress) {
  make_models(Rounding::kAll);
  set_weights(codes_);
  std::vector<OptimizedParameter> stepped;
  std::vector<at::Tensor> leaves;
  for (const RoundedActivation& activation : activations_) {
    stepped.push_back({activation.value, activation.step});
    leaves.push_back(activation.step);
  }
  Optimizer optimizer(adam(settings_.step_rate), stepped);
  Shuffled rows(samples_.count(), generators("order of steps"));
  std::vector<at::Generator> parts(kParts, generators("unused"));
  for (int64_t step = 0; step < settings_.step_iterations; ++step) {
    const std::vector<at::Tensor> slopes =
        gradients(rows.next(settings_.batch_size), {.power = kStepPower}, leaves, parts);
    for (size_t i = 0; i < leaves.size(); ++i) leaves[i].mutable_grad() = slopes[i];
    optimizer.step(half_cosine(step, settings_.step_iterations));
    optimizer.zero_grad();
    const at::NoGradGuard no_grad;
    for (at::Tensor& leaf : leaves) leaf.clamp_min_(kLeastStep);
    progress(settings_.iterations + step + 1);
  }
}

std::vector<at::Tensor> UnitTrainer::gradients(const at::Tensor& rows, const Loss& loss,
                                               const std::vector<at::Tensor>& leaves,
                                               std::vector<at::Generator>& generators) {
  const std::vector<at::Tensor> shares = rows.chunk(kParts);
  std::vector<std::vector<at::Tensor>> found(shares.size());
  workers_.run(static_cast<int64_t>(shares.size()), [&](size_t worker, int64_t task) {
    const Part part{worker, shares[task], static_cast<double>(rows.size(0))};
    found[task] = torch::autograd::grad({part_loss(part, loss, generators[task])}, leaves);
  });
  std::vector<at::Tensor> sums = std::move(found.front());
  for (size_t i = 0; i < sums.size(); ++i) {
    for (size_t share = 1; share < found.size(); ++share) sums[i] = sums[i] + found[share][i];
  }
  return sums;
}

// The inputs of the unit: those from the quantized network, or of each element either.
std::vector<at::Tensor> UnitTrainer::inputs(const at::Tensor& rows, bool mixed,
                                            at::Generator& generator) const {
  std::vector<at::Tensor> inputs;
  for (size_t i = 0; i < samples_.quantized.size(); ++i) {
    const at::Tensor own = samples_.quantized[i].index_select(0, rows);
    if (mixed && own.is_floating_point()) {
      const at::Tensor full = samples_.full[i].index_select(0, rows);
      inputs.push_back(at::where(chosen(settings_.drop, own.sizes(), generator), full, own));
    } else {
      inputs.push_back(own);
    }
  }
  return inputs;
}

at::Tensor UnitTrainer::part_loss(const Part& part, const Loss& loss, at::Generator& generator) {
  Model& model = models_[part.worker];
  std::vector<at::Tensor> given = inputs(part.rows, loss.mixed, generator);
  int64_t count = part.rows.size(0);
  if (loss.predicts) {
    // In one run: what the outputs are compared on, and what the predictions are computed from.
    const std::vector<at::Tensor> plain = inputs(part.rows, false, generator);
    for (size_t i = 0; i < given.size(); ++i) given[i] = at::cat({given[i], plain[i]});
    count *= 2;
  }
  if (loss.mixed) {
    for (const RoundedActivation& activation : activations_) {
      if (model.find_tensor(keep_name(activation)) == nullptr) continue;
      std::vector<int64_t> sizes = activation.sizes;
      sizes.insert(sizes.begin(), count);
      model.set_tensor(keep_name(activation), chosen(settings_.drop, sizes, generator));
    }
  }
  const at::Tensor outputs = model.forward(given).at(0);
  const at::Tensor output = outputs.narrow(0, 0, part.rows.size(0));
  const at::Tensor off = output - samples_.target.index_select(0, part.rows);
  const double positions = static_cast<double>(output[0].numel()) / output.size(channel_dim_);
  const at::Tensor powers = loss.power == 2 ? off.square() : off.abs().pow(loss.power);
  at::Tensor sum = weighed(powers, part.rows).sum() / (part.batch * positions);
  if (loss.predicts) {
    sum = sum + prediction_loss(part, outputs.narrow(0, part.rows.size(0), part.rows.size(0))) *
                    settings_.prediction;
  }
  return sum;
}

// KL(full || quantized) of softened predictions (Liu et al., CVPR 2023, equation 4).
at::Tensor UnitTrainer::prediction_loss(const Part& part, const at::Tensor& output) {
  std::vector<at::Tensor> given{output};
  for (const at::Tensor& input : beside_) given.push_back(input.index_select(0, part.rows));
  const at::Tensor found = suffixes_[part.worker].forward(given).at(0);
  const at::Tensor wanted =
      at::log_softmax(samples_.logits.index_select(0, part.rows) / settings_.temperature, -1);
  const at::Tensor got = at::log_softmax(found / settings_.temperature, -1);
  return (wanted.exp() * (wanted - got)).sum() / part.batch;
}

// The output of the unit as it is now, a chunk of samples after the other.
void UnitTrainer::each_output(
    const std::function<void(const Part& part, int64_t chunk, const at::Tensor& output)>& take) {
  make_models(Rounding::kAll);
  set_weights(codes_);
  const at::Tensor all = at::arange(samples_.count());
  workers_.run(chunks(), [&](size_t worker, int64_t chunk) {
    const Part part{worker, all.slice(0, chunk * kRunSamples, (chunk + 1) * kRunSamples), 1};
    at::Generator unused;
    at::NoGradGuard no_grad;
    take(part, chunk, models_[worker].forward(inputs(part.rows, false, unused)).at(0));
  });
}

int64_t UnitTrainer::chunks() const { return (samples_.count() + kRunSamples - 1) / kRunSamples; }

// The diagonal of the Fisher information at the unit's output: the squared slope of the divergence
// of predictions (Li et al., ICLR 2021, equation 10, with the divergence for the loss). Each sample
// has a mean of 1, else the few whose predictions have changed most would count alone.
void UnitTrainer::weigh_outputs() {
  std::vector<at::Tensor> found(chunks());
  each_output([&](const Part& part, int64_t chunk, const at::Tensor& output) {
    const at::AutoGradMode with_gradients(true);
    const at::Tensor leaf = output.detach().set_requires_grad(true);
    const at::Tensor squares =
        torch::autograd::grad({prediction_loss(part, leaf)}, {leaf})[0].square();
    std::vector<int64_t> elements(squares.dim() - 1);
    std::iota(elements.begin(), elements.end(), 1);
    const at::Tensor mean = squares.mean(elements, /*keepdim=*/true);
    found[chunk] = at::where(mean > kLeastSlope * kLeastSlope, squares / mean, 1.0);
  });
  importance_ = at::cat(found);
}

// Errors of some samples' outputs, each as much as it counts.
at::Tensor UnitTrainer::weighed(const at::Tensor& errors, const at::Tensor& rows) const {
  return importance_.defined() ? errors * importance_.index_select(0, rows) : errors;
}

double UnitTrainer::error() {
  std::vector<std::pair<double, double>> sums(chunks());
  each_output([&](const Part& part, int64_t chunk, const at::Tensor& output) {
    const at::Tensor target = samples_.target.index_select(0, part.rows);
    const auto size = [&](const at::Tensor& elements) {
      return weighed(elements.square(), part.rows).sum(at::kDouble).item<double>();
    };
    sums[chunk] = {size(output - target), size(target)};
  });
  double off = 0, size = 0;
  for (const auto& [difference, square] : sums) {
    off += difference;
    size += square;
  }
  return size > 0 ? off / size : off;
}

}  // namespace compress
