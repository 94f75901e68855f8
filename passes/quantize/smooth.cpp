// Moves the outliers of activations into weights, where they do less harm to a quantizer.
//
// A few channels of a transformer's activations are a hundred times larger than the others, so that
// a quantizer with one scale leaves the others a few levels. Dividing each channel by a scale, in
// the norm or layer in front, and multiplying the columns of the weights that read it, keeps the
// network as it is. A step that quantizes weights and activations comes behind.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/quantize/scale_groups.h"
#include "passes/quantize/smooth_scales.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/maximum.h>

#include <fmt/format.h>

#include <unordered_set>

namespace compress {

struct QuantizeSmoothOptions {
  double alpha = 0.5;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field(
        "alpha", alpha,
        "How much of the range goes into the weights: 0.5 balances, 0.8 and more for networks with "
        "strong outliers.")
        .range(0, 1);
    field("where", where, "The weights of the layers whose inputs are scaled.");
  }
};

namespace {

Wish input_range(const ScaledReader& reader) {
  return {reader.input->name(), Statistic::kChannelMinMax, reader.channel_dim};
}

at::Tensor greatest_activations(const ScaleGroup& group, const Statistics& statistics) {
  at::Tensor greatest;
  for (const ScaledReader& reader : group.readers) {
    const at::Tensor found = statistics.at(input_range(reader)).abs().amax(0);
    greatest = greatest.defined() ? at::maximum(greatest, found) : found;
  }
  return greatest;
}

at::Tensor greatest_weights(const ScaleGroup& group) {
  at::Tensor greatest;
  for (const ScaledReader& reader : group.readers) {
    const at::Tensor weight = reader.weight->effective().abs();
    const at::Tensor found = weight.movedim(reader.weight->input_dim(), 0).flatten(1).amax(1);
    greatest = greatest.defined() ? at::maximum(greatest, found) : found;
  }
  return greatest;
}

}  // namespace

class QuantizeSmooth final : public PassWith<QuantizeSmoothOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.smooth",
      "Moves the outliers of activations into weights, ahead of quantizing both",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes | Keeps::kOutputs,
      Locality::kModel,
      "Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large "
      "Language Models, ICML 2023"};

  Wishes wishes(const Model& model, const Options& options) const override {
    Model& graph = const_cast<Model&>(model);  // only looked at
    std::vector<Weight> selected = weights(graph, options.where);
    Wishes wishes;
    for (const ScaleGroup& group : find_scale_groups(graph, selected)) {
      if (!group.obstacle.empty()) continue;
      for (const ScaledReader& reader : group.readers) wishes.push_back(input_range(reader));
    }
    return wishes;
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    int64_t scaled = 0;
    std::unordered_set<const Weight*> grouped;
    for (const ScaleGroup& group : find_scale_groups(model, selected)) {
      for (const ScaledReader& reader : group.readers) grouped.insert(reader.weight);
      if (!group.obstacle.empty()) {
        context.message(fmt::format("{}: left alone, {}", group.name, group.obstacle));
        context.count("groups_left_alone");
        continue;
      }
      if (!context.begin(group.name)) break;
      const at::Tensor scales = smooth_scales(greatest_activations(group, context.statistics()),
                                              greatest_weights(group), options.alpha);
      if (scales.eq(1).all().item<bool>()) continue;
      apply_scales(model, group, scales);
      context.count("channels_scaled", group.channels);
      ++scaled;
    }
    for (const Weight& weight : selected) {
      if (grouped.contains(&weight)) continue;
      context.message(
          fmt::format("{}: left alone, no norm or layer in front of it can be divided by scales",
                      weight.name()));
      context.count("weights_left_alone");
    }
    context.count("groups_scaled", scaled);
    return scaled > 0 ? Change::kSome : Change::kNone;
  }
};

COMPRESS_PASS(QuantizeSmooth)

}  // namespace compress
