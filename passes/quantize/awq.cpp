// Rounds weights after scaling up those that meet large activations.
//
// The one per cent of channels whose activations are largest decide most of the error. Their
// weights are multiplied before rounding, and what computes the activations is divided, so that
// they get finer steps at the cost of their neighbours. Then each group's range is clipped where
// that makes the layer's outputs better. Activations stay as they are. Lin et al., MLSys 2024.

#include "compress/calibrate/layer_input.h"
#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/quantize/activation_aware.h"
#include "passes/quantize/attention_scores.h"
#include "passes/quantize/grid.h"
#include "passes/quantize/quantized_weights.h"
#include "passes/quantize/scale_groups.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace compress {

struct QuantizeAwqOptions {
  int bits = 4;
  Grid grid = Grid::kAffine;
  int64_t group_size = 128;
  int steps = 20;
  bool clip = true;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("bits", bits, "Bits of a code.").range(2, 8);
    field("grid", grid, "Codes around zero, or with a zero point where the range is lopsided.");
    field("group_size", group_size, "Weights of an output channel that share a scale.")
        .range(1, 1e9);
    field("steps", steps,
          "How many powers of the mean activation are tried, from 0 (no scaling) up to 1.")
        .range(1, 1000);
    field("clip", clip,
          "Whether ranges are clipped; those of queries and keys never are, which errors grow in.");
    field("where", where, "The weights to quantize.");
  }
};

namespace {

Wish gram_wish(const Weight& weight) {
  return {weight.layer()->output()->name(), Statistic::kInputGram};
}

Wish magnitude_wish(const ScaledReader& reader) {
  return {reader.input->name(), Statistic::kChannelAbsMean, reader.channel_dim};
}

bool has_gram(const Weight& weight) {
  return weight.layer() != nullptr && has_layer_input_matrix(*weight.layer());
}

}  // namespace

class QuantizeAwq final : public PassWith<QuantizeAwqOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.awq",
      "Rounds weights after scaling up those that meet large activations",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Lin et al., AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and "
      "Acceleration, MLSys 2024"};

  Wishes wishes(const Model& model, const Options& options) const override {
    Model& graph = const_cast<Model&>(model);  // only looked at
    std::vector<Weight> selected = weights(graph, options.where);
    Wishes wishes;
    for (const Weight& weight : selected) {
      if (has_gram(weight) && !weight.is_quantized()) wishes.push_back(gram_wish(weight));
    }
    for (const ScaleGroup& group : find_scale_groups(graph, selected)) {
      if (group.obstacle.empty()) wishes.push_back(magnitude_wish(group.readers.front()));
    }
    return wishes;
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    const RoundToNearest how{options.bits, options.grid == Grid::kSymmetric,
                             Granularity::group(options.group_size), RangeMethod::kMinmax};
    Scales scales;
    if (!scale_groups(model, selected, how, options, context, scales)) return changed(scales);
    const auto scores = layers_of_attention_scores(model);
    QuantizedWeights quantized;
    int64_t done = 0;
    for (Weight& weight : selected) {
      context.progress(done++, static_cast<int64_t>(selected.size()));
      const std::string obstacle = why_not(weight);
      if (!obstacle.empty()) {
        leave_alone(weight, obstacle, context);
        continue;
      }
      if (!context.begin(weight.name())) break;
      at::Tensor values = weight.effective();
      if (options.clip && !scores.contains(weight.layer())) {
        values = clip_weight(layer_of(weight, scaled_gram(weight, scales, context)), how);
      }
      quantized.encode(weight, round_to_nearest(values, weight.output_dim(), how, weight.name()));
    }
    quantized.report(context);
    return quantized.any() ? Change::kSome : changed(scales);
  }

 private:
  // What the columns of layers were multiplied by, [channels].
  using Scales = std::unordered_map<const Weight*, at::Tensor>;

  static Change changed(const Scales& scales) {
    return scales.empty() ? Change::kNone : Change::kSome;
  }

  static std::string why_not(const Weight& weight) {
    if (weight.is_quantized()) return unless_quantized(weight);
    return has_gram(weight) ? "" : "its layer is no matrix product with an input";
  }

  static AwareLayer layer_of(const Weight& weight, const at::Tensor& gram) {
    return {weight.effective(), weight.output_dim(), weight.input_dim(), gram};
  }

  // Of the inputs as they are now: divided by the scales.
  static at::Tensor scaled_gram(const Weight& weight, const Scales& scales,
                                const PassContext& context) {
    const at::Tensor gram = context.statistics().at(gram_wish(weight));
    const auto found = scales.find(&weight);
    if (found == scales.end()) return gram;
    const at::Tensor columns =
        found->second.repeat_interleave(gram.size(1) / found->second.numel(), 0);
    return gram / (columns.unsqueeze(0) * columns.unsqueeze(1));
  }

  // Scales all groups that can be; false where the limit of edits was reached.
  static bool scale_groups(Model& model, std::vector<Weight>& selected, const RoundToNearest& how,
                           const Options& options, PassContext& context, Scales& scales) {
    std::unordered_set<const Weight*> grouped;
    for (const ScaleGroup& group : find_scale_groups(model, selected)) {
      for (const ScaledReader& reader : group.readers) grouped.insert(reader.weight);
      if (!group.obstacle.empty()) {
        context.message(fmt::format("{}: not scaled, {}", group.name, group.obstacle));
        context.count("groups_left_alone");
        continue;
      }
      if (!context.begin(group.name)) return false;
      std::vector<AwareLayer> layers;
      for (const ScaledReader& reader : group.readers) {
        layers.push_back(
            layer_of(*reader.weight, context.statistics().at(gram_wish(*reader.weight))));
      }
      const ScaleSearch found =
          search_scales(layers, context.statistics().at(magnitude_wish(group.readers.front())), how,
                        options.steps);
      if (found.ratio == 0) continue;
      apply_scales(model, group, found.scales);
      for (const ScaledReader& reader : group.readers) scales[reader.weight] = found.scales;
      context.count("groups_scaled");
    }
    for (const Weight& weight : selected) {
      if (grouped.contains(&weight) || !why_not(weight).empty()) continue;
      context.message(
          fmt::format("{}: not scaled, no norm or layer in front of it can be divided by scales",
                      weight.name()));
      context.count("weights_not_scaled");
    }
    return true;
  }
};

COMPRESS_PASS(QuantizeAwq)

}  // namespace compress
