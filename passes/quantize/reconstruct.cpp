// Two walks side by side: the network as it was, and as it becomes.

#include "passes/quantize/reconstruct.h"

#include "compress/calibrate/layer_input.h"
#include "compress/calibrate/walk.h"
#include "compress/graph/extract.h"
#include "compress/graph/interpreter.h"
#include "passes/quantize/activation_sites.h"
#include "passes/quantize/quantized_weights.h"
#include "passes/quantize/round_to_nearest.h"
#include "passes/quantize/unit_trainer.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/cat.h>

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace compress {
namespace {

constexpr int64_t kRangeSamples = 256;       // that the first range of an activation is chosen on
constexpr int64_t kRangeElements = 1 << 16;  // of them
constexpr double kDecided = 0.99;  // share of roundings that should be, when the loop ends

using Batches = std::vector<std::vector<at::Tensor>>;

std::string obstacle(const Weight& weight) {
  const OperatorKind kind = weight.kind();
  if (weight.is_quantized()) return unless_quantized(weight);
  if (weight.uses().size() > 1) return fmt::format("{} layers share it", weight.uses().size());
  if (weight.layer() == nullptr || (kind != OperatorKind::kConv && kind != OperatorKind::kLinear)) {
    return "only weights of convolutions and linear layers can be reconstructed";
  }
  const Value* input = layer_input(*weight.layer());
  if (input == nullptr || input->is_named_tensor() || input == weight.value()) {
    return "the weight is not the right operand of its layer";
  }
  if (weight.dtype() != at::kFloat) return "it is not f32";
  return "";
}

class Reconstructor {
 public:
  Reconstructor(Model& model, std::vector<Weight> selected, const Reconstruction& settings,
                PassContext& context)
      : model_(model), original_(model.clone(false)), settings_(settings), context_(context) {
    for (Weight& weight : selected) {
      const std::string why = obstacle(weight);
      if (why.empty()) {
        selected_.push_back(std::move(weight));
        continue;
      }
      leave_alone(weight, why, context);
    }
  }

  Change run() {
    const std::vector<ReconstructionUnit> units =
        reconstruction_units(model_, selected_, settings_.units);
    Batches batches;
    context_.calibration()([&](const std::vector<at::Tensor>& batch) { batches.push_back(batch); });
    const BatchSource source = [&](const auto& take) {
      for (const std::vector<at::Tensor>& batch : batches) take(batch);
    };
    Walk quantized(model_, source), full(original_, source);
    find_ends();
    SerialWorkers workers;
    if (settings_.predicts()) predict(batches);
    total_ = static_cast<int64_t>(units.size()) *
             UnitTrainer::steps(settings_, settings_.activations > 0);
    for (const ReconstructionUnit& unit : units) {
      if (!context_.begin(unit.name)) break;
      quantized.advance(unit.first);
      full.advance(twin(unit.first->output())->producer());
      rebuild(unit, quantized, full, workers);
    }
    return report();
  }

 private:
  Value* twin(const Value* value) const { return original_.graph().find(value->name()); }

  // The first and the last layer of the model, whatever is selected.
  void find_ends() {
    for (const Weight& weight : weights(std::as_const(model_))) {
      if (weight.kind() != OperatorKind::kConv && weight.kind() != OperatorKind::kLinear) continue;
      if (first_.empty()) first_ = weight.name();
      last_ = weight.name();
    }
  }

  int bits_of(const Weight& weight, int bits) const {
    const bool end = weight.name() == first_ || weight.name() == last_;
    return bits > 0 && end && settings_.ends > 0 ? settings_.ends : bits;
  }

  at::Tensor all_samples(const Walk& walk, const Value* value) const {
    const at::Tensor all = at::cat(walk.at(value));
    require_samples(all, walk.samples(), value->name());
    return all;
  }

  static void require_samples(const at::Tensor& all, int64_t samples, const std::string& value) {
    if (all.dim() > 0 && all.size(0) == samples) return;
    throw Error(ErrorCode::kUnsupported,
                fmt::format("has {} rows for {} samples of calibration data",
                            all.dim() > 0 ? all.size(0) : 0, samples),
                value, "the first dimension must count samples");
  }

  // Outputs of a model on all samples, computed by all workers.
  static at::Tensor run_all(const Model& model, const std::vector<at::Tensor>& inputs,
                            SerialWorkers& workers) {
    const int64_t samples = inputs.front().size(0);
    const int64_t chunks = (samples + kRunSamples - 1) / kRunSamples;
    std::vector<Model> models;
    for (size_t i = 0; i < workers.size(); ++i) models.push_back(model.clone(false));
    std::vector<at::Tensor> outputs(chunks);
    workers.run(chunks, [&](size_t worker, int64_t chunk) {
      const at::NoGradGuard no_grad;
      std::vector<at::Tensor> rows;
      for (const at::Tensor& input : inputs) {
        rows.push_back(input.slice(0, chunk * kRunSamples, (chunk + 1) * kRunSamples));
      }
      outputs[chunk] = models[worker].forward(rows).at(0);
    });
    return at::cat(outputs);
  }

  // What the network as it was says of all samples.
  void predict(const Batches& batches) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> logits;
    for (const std::vector<at::Tensor>& batch : batches) {
      logits.push_back(original_.forward(batch).at(0));
      const at::Tensor& rows = logits.back();
      if (rows.dim() == 2 && rows.is_floating_point() && rows.size(0) == batch.at(0).size(0))
        continue;
      throw Error(ErrorCode::kUnsupported, "the first output is not one row of logits a sample",
                  original_.graph().outputs().at(0).name,
                  "use quantize.qdrop, which needs no predictions");
    }
    logits_ = at::cat(logits);
    for (size_t i = 0; i < original_.graph().inputs().size(); ++i) {
      std::vector<at::Tensor> parts;
      for (const std::vector<at::Tensor>& batch : batches) parts.push_back(batch[i]);
      model_inputs_.push_back(at::cat(parts));
    }
  }

  UnitSamples samples_of(const ReconstructionUnit& unit, const Walk& quantized, const Walk& full,
                         SerialWorkers& workers) {
    UnitSamples samples;
    std::vector<const Value*> twins;
    for (const Value* input : unit.inputs) {
      twins.push_back(twin(input));
      samples.quantized.push_back(all_samples(quantized, input));
      samples.full.push_back(all_samples(full, twins.back()));
    }
    const Model part = extract(original_, twins, {twin(unit.output)});
    if (settings_.correction.steps > 0) {
      const std::vector<const Node*> norms = correctable_norms(part);
      if (!norms.empty()) ++corrected_;
      samples.full = corrected_inputs(part, norms, samples.full, settings_.correction, workers);
    }
    samples.target = run_all(part, samples.full, workers);
    require_samples(samples.target, quantized.samples(), unit.output->name());
    samples.logits = logits_;
    if (settings_.drop == 0) samples.full.clear();
    return samples;
  }

  RoundedWeight rounded(const Weight& weight) const {
    RoundedWeight out{
        weight.name(), weight.effective().contiguous(), weight.mask(), weight.output_dim(), {}};
    const int bits = bits_of(weight, settings_.bits);
    const bool symmetric = settings_.grid == Grid::kSymmetric;
    // Refuses what is not finite, whatever the range.
    const QuantizedTensor nearest = round_to_nearest(
        out.elements, out.channel_dim,
        {bits, symmetric, Granularity::channel(),
         settings_.range == WeightRange::kMinmax ? RangeMethod::kMinmax : RangeMethod::kMse},
        weight.name());
    out.grid = settings_.range == WeightRange::kLp
                   ? least_error_grid(as_matrix(out.elements, out.channel_dim), bits, symmetric)
                   : grid_of(nearest);
    return out;
  }

  // Elements that stand for all of a tensor, [1, elements]: its extremes, and others at equal
  // distances.
  static at::Tensor range_elements(const at::Tensor& content) {
    const at::Tensor all = content.reshape({-1}).to(at::kFloat);
    // Odd, so that it does not keep to one column of an image.
    const int64_t stride = all.numel() / kRangeElements | 1;
    return at::cat({all.slice(0, 0, all.numel(), stride), all.min().view({1}), all.max().view({1})})
        .view({1, -1});
  }

  // The inputs of the unit's layers with their first steps, found on some of the samples.
  std::vector<RoundedActivation> activations_of(const ReconstructionUnit& unit, const Model& part,
                                                const UnitSamples& samples) const {
    std::vector<RoundedActivation> found;
    if (settings_.activations == 0) return found;
    for (const size_t index : unit.weights) {
      const Weight& weight = selected_[index];
      const std::string value = layer_input(*weight.layer())->name();
      const std::string layer = weight.layer()->output()->name();
      const int bits = bits_of(weight, settings_.activations);
      const auto same = std::find_if(found.begin(), found.end(), [&](const auto& known) {
        return known.value == value && known.bits == bits;
      });
      if (same != found.end()) {
        same->layers.push_back(layer);
      } else {
        found.push_back({value, {layer}, bits, 0, {}, {}});
      }
    }
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> some;
    for (const at::Tensor& input : samples.quantized) {
      some.push_back(input.slice(0, 0, kRangeSamples));
    }
    std::unordered_map<std::string, at::Tensor> seen;
    part.interpreter().run(some, [&](const Value& value, const c10::IValue& content) {
      for (const RoundedActivation& activation : found) {
        if (activation.value == value.name()) seen[value.name()] = content.toTensor();
      }
    });
    for (RoundedActivation& activation : found) {
      const at::Tensor& content = seen.at(activation.value);
      require_samples(content, some.front().size(0), activation.value);
      const UniformGrid grid = least_error_grid(range_elements(content), activation.bits, false);
      activation.zero_point = grid.zero.item<int64_t>();
      activation.step = grid.scale.reshape({1}).clone().set_requires_grad(true);
      activation.sizes = content.sizes().slice(1).vec();
    }
    return found;
  }

  void rebuild(const ReconstructionUnit& unit, const Walk& quantized, const Walk& full,
               SerialWorkers& workers) {
    UnitSamples samples = samples_of(unit, quantized, full, workers);
    const Model part = extract_unit(model_, unit);
    std::vector<RoundedWeight> to_round;
    for (const size_t index : unit.weights) to_round.push_back(rounded(selected_[index]));
    std::vector<RoundedActivation> activations = activations_of(unit, part, samples);
    UnitTrainer trainer(part, to_round, activations, std::move(samples),
                        channel_dim_of(unit, selected_), settings_, workers);
    if (settings_.predicts()) add_predictions(unit, trainer);
    if (settings_.bias_rate > 0) add_biases(unit, trainer);
    const UnitOutcome outcome = trainer.train(
        [&](const std::string& what) { return context_.generator(unit.name + "/" + what); },
        [&](int64_t steps) { context_.progress(done_ + steps, total_); });
    done_ += UnitTrainer::steps(settings_, settings_.activations > 0);
    keep(unit, activations, outcome);
  }

  void add_predictions(const ReconstructionUnit& unit, UnitTrainer& trainer) const {
    std::vector<const Value*> from{twin(unit.output)};
    for (const Value* input : original_.graph().inputs()) from.push_back(input);
    const Value* logits = original_.graph().outputs().at(0).value.value();
    try {
      trainer.predict_with(extract(original_, from, {logits}), model_inputs_);
    } catch (const Error& error) {
      throw error.within(unit.name);
    }
  }

  void add_biases(const ReconstructionUnit& unit, UnitTrainer& trainer) const {
    const UseMap uses(model_.graph());
    for (const size_t index : unit.weights) {
      const Node& layer = *selected_[index].layer();
      const char* name = layer.op() == "aten::addmm" ? "self" : "bias";
      const Value* bias = layer.has_argument(name) ? layer.argument(name).value() : nullptr;
      if (bias == nullptr || !bias->is_named_tensor() || uses.of(bias).size() > 1) continue;
      trainer.train_bias(bias->name());
    }
  }

  void keep(const ReconstructionUnit& unit, const std::vector<RoundedActivation>& activations,
            const UnitOutcome& outcome) {
    for (size_t i = 0; i < activations.size(); ++i) {
      round_activation(activations[i], outcome.steps[i]);
    }
    for (const auto& [name, bias] : outcome.biases) model_.set_tensor(name, bias);
    for (size_t i = 0; i < unit.weights.size(); ++i) {
      Weight& weight = selected_[unit.weights[i]];
      quantized_.encode(weight, outcome.codes[i]);
    }
    ++units_;
    error_ += outcome.error;
    error_nearest_ += outcome.error_nearest;
    undecided_ += outcome.undecided;
    context_.count("activations_quantized", static_cast<int64_t>(activations.size()));
    if (outcome.improved) return;
    context_.count("units_left_nearest");
    context_.message(
        fmt::format("{}: keeps the nearest codes, which are better than what {} "
                    "iterations found",
                    unit.name, settings_.iterations));
  }

  void round_activation(const RoundedActivation& activation, double step) {
    Graph& graph = model_.graph();
    Value* value = graph.find(activation.value);
    Value* rounding = nullptr;
    for (const std::string& output : activation.layers) {
      Node* layer = graph.find(output)->producer();
      if (rounding == nullptr) {
        rounding =
            fake_quantize(graph, layer, value,
                          {step, activation.zero_point, 0, (int64_t{1} << activation.bits) - 1});
      }
      for (size_t i = 0; i < layer->arguments().size(); ++i) {
        if (layer->arguments()[i].value() == value) {
          graph.set_argument(layer, i, rounding);
        }
      }
    }
  }

  Change report() {
    quantized_.report(context_);
    context_.count("units", units_);
    if (units_ == 0) return Change::kNone;
    if (settings_.correction.steps > 0) {
      context_.count("units_corrected", corrected_);
      if (corrected_ == 0) {
        context_.message(
            "no block has a batch norm with statistics, so its inputs were not corrected towards "
            "them; put this step in front of fold.batch_norm, or set `correction` to 0");
      }
    }
    const auto mean = [&](double sum) { return sum / static_cast<double>(units_); };
    context_.measure("unit_error", mean(error_));
    context_.measure("unit_error_nearest", mean(error_nearest_));
    if (settings_.free_weights) return Change::kSome;
    const double decided =
        1 - static_cast<double>(undecided_) / static_cast<double>(quantized_.elements());
    context_.measure("roundings_decided", decided);
    if (decided < kDecided) {
      context_.message(fmt::format(
          "{:.1f} % of the roundings were still open when the loop ended and were cut off; more "
          "`iterations`, a higher `rate` or a higher `penalty` decide more",
          100 * (1 - decided)));
    }
    return Change::kSome;
  }

  Model& model_;
  const Model original_;
  const Reconstruction& settings_;
  PassContext& context_;
  std::vector<Weight> selected_;
  std::string first_, last_;  // weights of the first and the last layer
  at::Tensor logits_;
  std::vector<at::Tensor> model_inputs_;
  int64_t done_ = 0, total_ = 0;
  QuantizedWeights quantized_;
  int64_t units_ = 0, corrected_ = 0, undecided_ = 0;
  double error_ = 0, error_nearest_ = 0;
};

}  // namespace

Change reconstruct(Model& model, std::vector<Weight> selected, const Reconstruction& settings,
                   PassContext& context) {
  return Reconstructor(model, std::move(selected), settings, context).run();
}

}  // namespace compress
