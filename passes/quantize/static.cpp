// Rounds weights and activations by ranges that calibration data have shown.
//
// Quantizers of activations stand where a layer reads its input, so behind the ReLU and the batch
// norm of the layer in front, and around residual adds: an integer engine can then go through the
// network without leaving its codes. Weights become packed codes as in quantize.weights,
// activations `aten::fake_quantize_per_tensor_affine`.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/layer_bias.h"
#include "passes/quantize/activation_sites.h"
#include "passes/quantize/bias_correction.h"
#include "passes/quantize/grid.h"
#include "passes/quantize/quantized_weights.h"
#include "passes/quantize/ranges.h"
#include "passes/quantize/round_to_nearest.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace compress {

/// Which integers the codes of an activation are.
enum class CodeType { kUnsigned, kSigned };
inline std::vector<std::string_view> option_names(CodeType) { return {"uint", "int"}; }

struct QuantizeStaticOptions {
  int bits = 8;
  Grid grid = Grid::kSymmetric;
  Granularity granularity = Granularity::channel();
  RangeMethod range = RangeMethod::kMinmax;
  double percentile = 99.9;
  int activations = 8;
  Grid activation_grid = Grid::kAffine;
  CodeType activation_codes = CodeType::kUnsigned;
  ActivationRange activation_range = ActivationRange::kMse;
  double activation_percentile = 99.99;
  int first_last = 8;
  int adds = 8;
  AddOperands add_operands = AddOperands::kBoth;
  bool correct_bias = true;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("bits", bits, "Bits of a weight's code.").range(2, 8);
    field("grid", grid,
          "Weights: codes around zero, or with a zero point (few engines take that).");
    field("granularity", granularity,
          "What shares one scale; a group is a run of weights in one output channel.");
    field("range", range, "How the range that a weight's codes cover is chosen.");
    field("percentile", percentile, "Share of the weights inside, if that is `percentile`.")
        .range(50, 100);
    field("activations", activations, "Bits of what those layers read, one range a tensor.")
        .range(2, 8);
    field("activation_grid", activation_grid,
          "Activations: codes around zero (from zero on where nothing is negative), or with a zero "
          "point.");
    field("activation_codes", activation_codes,
          "Activations: codes from 0 on, or around 0 (the same numbers if `affine`).");
    field("activation_range", activation_range,
          "How the range of an activation is chosen from calibration data.");
    field("activation_percentile", activation_percentile,
          "Share of an activation's elements inside, if that is `percentile`.")
        .range(50, 100);
    field(
        "first_last", first_last,
        "Bits, of weight and input, of the first and the last layer of the model; 0: as they are.")
        .range(0, 8);
    field("adds", adds,
          "Bits of what residual adds read and give, so that integers go around each block; 0: as "
          "they are.")
        .range(0, 8);
    field("add_operands", add_operands,
          "Round both operands of those adds, or the `shortcut` alone where the engine adds in the "
          "convolution's accumulator.");
    field("correct_bias", correct_bias,
          "Take the mean error that the rounded weights make out of the biases.");
    field("where", where, "The weights of the layers to quantize.");
  }
  void validate(Problems& problems) const {
    for (const auto& [name, bits] : {std::pair{"first_last", first_last}, {"adds", adds}}) {
      if (bits == 1) problems.add(name, "one bit is too few", "use 2 to 8, or 0");
    }
  }
};

namespace {

constexpr int64_t kFewSamples = 32;

// A selected layer and the width of its weight.
struct PlannedLayer {
  size_t weight = 0;  // index into the model's weights
  int bits = 8;
};

// What is to be done with a model.
struct Plan {
  std::vector<PlannedLayer> layers;
  std::vector<ActivationSite> sites;
};

bool has_activation(const Weight& weight) {
  return std::any_of(weight.uses().begin(), weight.uses().end(),
                     [](const WeightUse& use) { return activation_of(use) != nullptr; });
}

Plan make_plan(const Graph& graph, const std::vector<Weight>& all,
               const QuantizeStaticOptions& options) {
  std::vector<size_t> layers;
  for (size_t i = 0; i < all.size(); ++i) {
    if (has_activation(all[i])) layers.push_back(i);
  }
  Plan plan;
  std::vector<ActivationRead> reads;
  for (const size_t i : layers) {
    if (!options.where.matches(selector_target(all[i]))) continue;
    const bool end = i == layers.front() || i == layers.back();
    if (end && options.first_last == 0) continue;
    plan.layers.push_back({i, end ? options.first_last : options.bits});
    const int bits = end ? options.first_last : options.activations;
    for (ActivationRead& read : layer_reads(all[i], bits)) reads.push_back(std::move(read));
  }
  if (options.adds > 0) {
    std::vector<const Node*> selected;
    for (const PlannedLayer& layer : plan.layers) {
      for (const WeightUse& use : all[layer.weight].uses()) selected.push_back(use.layer);
    }
    for (ActivationRead& read :
         residual_reads(graph, selected, options.adds, options.add_operands)) {
      reads.push_back(std::move(read));
    }
  }
  plan.sites = activation_sites(graph, reads);
  return plan;
}

// Counted from the end, so that a batch dimension makes no difference.
Wish input_mean(const WeightUse& use, const Weight& weight) {
  const bool conv = weight.kind() == OperatorKind::kConv;
  const auto dims = static_cast<int64_t>(weight.sizes().size());
  return {activation_of(use)->name(), Statistic::kChannelMean, conv ? 1 - dims : -1};
}

std::string correction_obstacle(const Model& model, const Weight& weight, const WeightUse& use) {
  if (activation_of(use) == nullptr) return "its input is a tensor of the model";
  const Node& layer = *use.layer;
  if (layer.op().starts_with("aten::conv_transpose") ||
      (layer.has_argument("transposed") && layer.argument("transposed") == Argument(true))) {
    return "the convolution is transposed";
  }
  if (layer.op() == "aten::addmm" && use.argument != 2) return "its weight is the left operand";
  return bias_obstacle(model, *use.layer);
}

// One run of the pass on one model.
class StaticQuantizer {
 public:
  StaticQuantizer(Model& model, const QuantizeStaticOptions& options, PassContext& context)
      : model_(model),
        options_(options),
        context_(context),
        weights_(weights(model)),
        plan_(make_plan(model.graph(), weights_, options)) {}

  Change run() {
    const bool any = quantize_weights() && quantize_activations();
    if (any) say_what_is_odd();
    quantized_.report(context_);
    context_.count("activations_quantized", activations_);
    return quantized_.any() || activations_ > 0 ? Change::kSome : Change::kNone;
  }

 private:
  RoundToNearest rounding(int bits) const {
    return {bits, options_.grid == Grid::kSymmetric, options_.granularity, options_.range,
            options_.percentile};
  }

  // False when no more edits are allowed.
  bool quantize_weights() {
    for (const PlannedLayer& layer : plan_.layers) {
      Weight& weight = weights_[layer.weight];
      if (const std::string reason = unless_quantized(weight); !reason.empty()) {
        context_.message(fmt::format("{}: its weight is left alone, {}", weight.name(), reason));
        context_.count("weights_left_alone");
        continue;
      }
      if (!context_.begin(weight.name())) return false;
      const at::Tensor exact = weight.effective();
      const QuantizedTensor codes =
          round_to_nearest(exact, weight.output_dim(), rounding(layer.bits), weight.name());
      look_at_groups(weight, codes);
      look_for_dead_channels(weight, exact);
      if (options_.correct_bias) correct_biases(weight, dequantize(codes) - exact);
      quantized_.encode(weight, codes);
    }
    return true;
  }

  bool quantize_activations() {
    for (const ActivationSite& site : plan_.sites) {
      if (!context_.begin(site.value->name())) return false;
      const ActivationCodes codes{site.bits, options_.activation_grid == Grid::kSymmetric,
                                  options_.activation_codes == CodeType::kSigned};
      const RangeChoice choice{options_.activation_range, options_.activation_percentile};
      const Wish wish{site.value->name(), statistic_for(choice.method)};
      const Interval range = range_of(context_.statistics().at(wish), choice, codes);
      if (range == Interval{}) {
        context_.message(fmt::format("{}: is 0 on all calibration data", site.value->name()));
      }
      fake_quantize(model_.graph(), site, activation_grid(range, codes));
      ++activations_;
    }
    return true;
  }

  void correct_biases(const Weight& weight, const at::Tensor& error) {
    for (const WeightUse& use : weight.uses()) {
      const std::string obstacle = correction_obstacle(model_, weight, use);
      if (!obstacle.empty()) {
        context_.message(fmt::format("{}: bias not corrected, {}", weight.name(), obstacle));
        continue;
      }
      const at::Tensor mean = context_.statistics().at(input_mean(use, weight));
      at::Tensor bias = -expected_output_shift(error, mean, use.output_dim, weight.groups());
      const at::Tensor old = bias_of(model_, *use.layer);
      if (old.defined()) bias = bias + old.to(at::kDouble);
      set_bias(model_, use.layer, weight.name(), bias.to(weight.dtype()));
      context_.count("biases_corrected");
    }
  }

  void look_at_groups(const Weight& weight, const QuantizedTensor& codes) {
    if (options_.granularity.kind != Granularity::Kind::kGroup) return;
    const int64_t size = options_.granularity.group_size;
    if (codes.columns() % size == 0) return;
    context_.message(
        fmt::format("{}: groups of {} do not divide its {} columns, the last is shorter",
                    weight.name(), size, codes.columns()));
  }

  void look_for_dead_channels(const Weight& weight, const at::Tensor& exact) {
    const at::Tensor largest = as_matrix(exact, weight.output_dim()).abs().amax(1);
    const auto dead = (largest == 0).sum().item<int64_t>();
    if (dead == 0) return;
    context_.count("dead_channels", dead);
    context_.message(fmt::format("{}: {} of {} output channels have no weight but 0", weight.name(),
                                 dead, largest.numel()));
  }

  void say_what_is_odd() {
    const int64_t samples = context_.statistics().samples;
    if (!plan_.sites.empty() && samples < kFewSamples) {
      context_.message(fmt::format("ranges are those of {} samples only; {} and more are usual",
                                   samples, 16 * kFewSamples));
    }
    const UseMap uses(model_.graph());
    std::vector<const Node*> norms;
    for (const PlannedLayer& layer : plan_.layers) {
      for (const WeightUse& use : weights_[layer.weight].uses()) {
        for (const Use& reader : uses.of(use.layer->output())) {
          if (reader.node != nullptr && reader.node->op() == "aten::batch_norm") {
            norms.push_back(use.layer);
          }
        }
      }
    }
    if (norms.empty()) return;
    context_.message(
        fmt::format("a batch norm stands unfolded behind {} quantized layers, first {}; integer "
                    "engines want fold.batch_norm before this step",
                    norms.size(), norms.front()->module_path));
  }

  Model& model_;
  const QuantizeStaticOptions& options_;
  PassContext& context_;
  std::vector<Weight> weights_;
  Plan plan_;
  QuantizedWeights quantized_;
  int64_t activations_ = 0;
};

}  // namespace

class QuantizeStatic final : public PassWith<QuantizeStaticOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.static",
      "Rounds weights and activations by ranges that calibration data have shown",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Jacob et al., Quantization and Training of Neural Networks for Efficient "
      "Integer-Arithmetic-Only Inference, CVPR 2018"};

  Wishes wishes(const Model& model, const Options& options) const override {
    const std::vector<Weight> all = weights(model);
    const Plan plan = make_plan(model.graph(), all, options);
    Wishes wishes;
    for (const ActivationSite& site : plan.sites) {
      wishes.push_back({site.value->name(), statistic_for(options.activation_range)});
    }
    if (!options.correct_bias) return wishes;
    for (const PlannedLayer& layer : plan.layers) {
      const Weight& weight = all[layer.weight];
      for (const WeightUse& use : weight.uses()) {
        const bool can = !weight.is_quantized() && correction_obstacle(model, weight, use).empty();
        if (can) wishes.push_back(input_mean(use, weight));
      }
    }
    return wishes;
  }

  void check(const Model& model, const Options& options) const override {
    const std::vector<Weight> all = weights(model);
    const bool any = std::any_of(all.begin(), all.end(), [&](const Weight& weight) {
      return options.where.matches(selector_target(weight)) && has_activation(weight);
    });
    if (any || model.is_tensor_set()) return;
    if (std::none_of(all.begin(), all.end(), [&](const Weight& weight) {
          return options.where.matches(selector_target(weight));
        })) {
      return;  // said by the check of selectors
    }
    throw Error(ErrorCode::kInvalidArgument,
                "selects no convolution or linear layer, whose input could be rounded", "where",
                "quantize.weights rounds embeddings and recurrent layers");
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    return StaticQuantizer(model, options, context).run();
  }
};

COMPRESS_PASS(QuantizeStatic)

}  // namespace compress
