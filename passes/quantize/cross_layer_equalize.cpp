// Gives channels that two layers share the same range in both.
//
// ReLU(s x) = s ReLU(x), so a channel can be made smaller where a layer writes it and larger where
// the next one reads it. One scale a tensor then serves all channels: without this, 8 bits a tensor
// ruin depthwise networks. Chains (a depthwise convolution between two others) are pairs that are
// equalized in turns until nothing moves. Works with batch norms in place, whose weight and bias
// take the factors of the outputs, and with folded ones.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/batch_norm_node.h"
#include "passes/layer_bias.h"
#include "passes/quantize/equalize.h"
#include "passes/quantize/layer_pairs.h"
#include "passes/require_graph.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

namespace compress {

struct QuantizeCrossLayerEqualizeOptions {
  bool absorb_bias = false;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field(
        "absorb_bias", absorb_bias,
        "Also move what a batch norm adds beyond three deviations, and a ReLU passes on, into the "
        "next layer; changes outputs a little, at padded borders too.");
    field("where", where, "The weights of the layers to equalize.");
  }
};

namespace {

constexpr int kMostSweeps = 200;
constexpr double kStill = 1e-6;  // relative change of a factor below which a sweep changes nothing

// A layer with its weight as the network computes with it, and the factors so far.
struct Scaled {
  PairLayer layer;
  at::Tensor channels;         // with the factors of a batch norm behind it
  at::Tensor outputs, inputs;  // factors, [channels]; undefined: 1
};

void multiply(at::Tensor& total, const at::Tensor& factors) {
  total = total.defined() ? total * factors : factors;
}

class Equalizer {
 public:
  Equalizer(Model& model, std::vector<LayerPair> pairs) : model_(model), pairs_(std::move(pairs)) {
    for (const LayerPair& pair : pairs_) {
      add(pair.first);
      add(pair.second);
    }
  }

  // How many times all pairs were gone through.
  int equalize() {
    for (int sweep = 1; sweep <= kMostSweeps; ++sweep) {
      double moved = 0;
      for (const LayerPair& pair : pairs_) {
        Scaled &first = at(pair.first), &second = at(pair.second);
        const at::Tensor s =
            equalizing_factors(output_ranges(first.channels), inputs_of(second, pair.channels));
        moved = std::max(moved, (s - 1).abs().max().item<double>());
        first.channels = scale_outputs(first.channels, s.reciprocal());
        multiply(first.outputs, s.reciprocal());
        const at::Tensor spread = spread_over(second, s);
        second.channels = scale_inputs(second.channels, spread);
        multiply(second.inputs, spread);
      }
      if (moved < kStill) return sweep;
    }
    return kMostSweeps;
  }

  // Writes the factors into the model.
  void apply() {
    for (const Node* node : order_) {
      const Scaled& scaled = layers_.at(node);
      const PairLayer& layer = scaled.layer;
      const at::Tensor stored = model_.tensor(layer.weight->stored()->name).detach();
      at::Tensor channels = plain_channels(layer, stored, scaled);
      if (scaled.inputs.defined()) channels = scale_inputs(channels, scaled.inputs);
      if (scaled.outputs.defined()) {
        if (layer.norm != nullptr) {
          scale_norm(*layer.norm, scaled.outputs);
        } else {
          channels = scale_outputs(channels, scaled.outputs);
          scale_bias(layer, scaled.outputs);
        }
      }
      layer.weight->set_stored(from_channels(channels, stored, layer.weight->output_dim()));
    }
  }

  // After `apply`: how many channels gave something to the next layer.
  int64_t absorb(PassContext& context) {
    int64_t absorbed = 0;
    for (const LayerPair& pair : pairs_) {
      if (!pair.has_relu) continue;
      if (pair.first.norm == nullptr) {
        context.message(
            fmt::format("{}: bias not absorbed, without its batch norm the distribution "
                        "of its outputs is unknown (fold.batch_norm comes after)",
                        pair.first.weight->name()));
        continue;
      }
      const BatchNorm norm = read_batch_norm(model_, *pair.first.norm);
      const at::Tensor c = absorbed_bias(norm.bias.to(at::kDouble), norm.weight.to(at::kDouble));
      const auto more = (c > 0).sum().item<int64_t>();
      if (more == 0) continue;
      absorbed += more;
      set(*pair.first.norm, "bias", norm.bias.to(at::kDouble) - c);
      give(pair, c);
    }
    return absorbed;
  }

 private:
  void add(const PairLayer& layer) {
    const auto [position, is_new] = layers_.try_emplace(layer.node);
    if (!is_new) return;
    order_.push_back(layer.node);
    Scaled& scaled = position->second;
    scaled.layer = layer;
    const Weight& weight = *layer.weight;
    const int64_t all = weight.sizes()[weight.input_dim()] * weight.groups();
    scaled.channels = by_channels(weight.effective(), weight.output_dim(), weight.groups(), all);
    if (layer.norm != nullptr) {
      const BatchNorm norm = read_batch_norm(model_, *layer.norm);
      scaled.channels = scale_outputs(scaled.channels, channel_factors(norm));
    }
  }

  Scaled& at(const PairLayer& layer) { return layers_.at(layer.node); }

  // A flattened channel is a run of inputs.
  static at::Tensor inputs_of(const Scaled& second, int64_t channels) {
    return input_ranges(second.channels).view({channels, -1}).amax(1);
  }
  static at::Tensor spread_over(const Scaled& second, const at::Tensor& factors) {
    const int64_t inputs = second.channels.size(0) * second.channels.size(2);
    return factors.repeat_interleave(inputs / factors.numel());
  }

  static at::Tensor plain_channels(const PairLayer& layer, const at::Tensor& weight,
                                   const Scaled& scaled) {
    return by_channels(weight, layer.weight->output_dim(), scaled.channels.size(0),
                       scaled.channels.size(0) * scaled.channels.size(2));
  }

  void set(const Node& norm, std::string_view argument, const at::Tensor& to) {
    const std::string& name = norm_value(norm, argument)->name();
    model_.set_tensor(name, to.to(model_.tensor(name).scalar_type()));
  }

  void scale_norm(const Node& norm, const at::Tensor& factors) {
    for (const char* argument : {"weight", "bias"}) {
      set(norm, argument, norm_tensor(model_, norm, argument).to(at::kDouble) * factors);
    }
  }

  void scale_bias(const PairLayer& layer, const at::Tensor& factors) {
    const at::Tensor bias = bias_of(model_, *layer.node);
    if (!bias.defined()) return;
    set_bias(model_, layer.node, layer.weight->name(),
             (bias.to(at::kDouble) * factors).to(bias.scalar_type()));
  }

  // The second layer answers to c what the first no longer gives it.
  void give(const LayerPair& pair, const at::Tensor& c) {
    const PairLayer& layer = pair.second;
    const Scaled& scaled = at(layer);
    const at::Tensor channels = plain_channels(layer, layer.weight->effective(), scaled);
    const at::Tensor more = response_to(channels, spread_over(scaled, c));
    if (layer.norm != nullptr) {
      const at::Tensor mean = norm_tensor(model_, *layer.norm, "running_mean");
      set(*layer.norm, "running_mean", mean.to(at::kDouble) - more);
      return;
    }
    const at::Tensor bias = bias_of(model_, *layer.node);
    set_bias(model_, layer.node, layer.weight->name(),
             (bias.defined() ? bias.to(at::kDouble) + more : more).to(layer.weight->dtype()));
  }

  Model& model_;
  std::vector<LayerPair> pairs_;
  std::unordered_map<const Node*, Scaled> layers_;
  std::vector<const Node*> order_;
};

}  // namespace

class QuantizeCrossLayerEqualize final : public PassWith<QuantizeCrossLayerEqualizeOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.cross_layer_equalize",
      "Gives channels that two layers share the same range in both",
      Needs::kWeights,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, ICCV "
      "2019"};

  void check(const Model& model, const Options&) const override {
    require_graph(model, "neighbouring layers");
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    std::vector<std::string> obstacles;
    std::vector<LayerPair> pairs;
    for (LayerPair& pair : layer_pairs(model, selected, &obstacles)) {
      if (!context.begin(pair.first.weight->name())) break;
      pairs.push_back(pair);
    }
    for (std::string& obstacle : obstacles) context.message(std::move(obstacle));
    context.count("pairs_equalized", static_cast<int64_t>(pairs.size()));
    if (pairs.empty()) {
      context.message("no two layers follow each other with nothing but a ReLU between them");
      return Change::kNone;
    }
    Equalizer equalizer(model, std::move(pairs));
    context.count("sweeps", equalizer.equalize());
    equalizer.apply();
    if (options.absorb_bias) context.count("biases_absorbed", equalizer.absorb(context));
    return Change::kSome;
  }
};

COMPRESS_PASS(QuantizeCrossLayerEqualize)

}  // namespace compress
