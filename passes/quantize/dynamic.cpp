// Rounds weights once and activations as they come, each by its own least and greatest element.
//
// No calibration data and no clipping, at the price of a look at every activation before each
// layer; the usual choice for linear layers of transformers, whose activations vary much from input
// to input. The range becomes a few plain operators in the graph:
// scale = (max - min) / (2^b - 1) and zero_point = round(-min / scale), with 0 put into the range,
// for `aten::fake_quantize_per_tensor_affine.tensor_qparams`.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/quantize/activation_sites.h"
#include "passes/quantize/quantized_weights.h"
#include "passes/quantize/round_to_nearest.h"
#include "passes/require_graph.h"

#include <fmt/format.h>

#include <cfloat>

namespace compress {

struct QuantizeDynamicOptions {
  int bits = 8;
  Granularity granularity = Granularity::channel();
  RangeMethod range = RangeMethod::kMinmax;
  double percentile = 99.9;
  int activations = 8;
  Selector where = Selector::kind(OperatorKind::kLinear);

  template <class Visitor>
  void visit(Visitor& field) {
    field("bits", bits, "Bits of a weight's code, around zero.").range(2, 8);
    field("granularity", granularity,
          "What shares one scale; a group is a run of weights in one output channel.");
    field("range", range, "How the range that a weight's codes cover is chosen.");
    field("percentile", percentile, "Share of the weights inside, if that is `percentile`.")
        .range(50, 100);
    field("activations", activations, "Bits of what those layers read, one range a tensor.")
        .range(2, 8);
    field("where", where, "The weights of the layers to quantize.");
  }
};

namespace {

// Puts the range of a value and its rounding in front of the first that reads it rounded.
void round_dynamically(Graph& graph, const ActivationSite& site) {
  Node* before = site.reads.front().node;
  const std::string base = site.value->name();
  const auto call = [&](const char* op, std::vector<Argument> arguments, const char* what) {
    return graph.insert(
        before, {op, std::move(arguments), {}, base + what, 1, site.reads.front().module_path});
  };
  const int64_t last = (int64_t{1} << site.bits) - 1;
  Value* wide = site.value;
  if (wide->type.dtype && *wide->type.dtype != c10::ScalarType::Float) {
    wide = call("aten::to.dtype", {wide, c10::ScalarType::Float}, "_float")->output();
  }
  // Gradients pass through the value, never through its range: the operator has none for a scale.
  wide = call("aten::detach", {wide}, "_detached")->output();
  const Node* extremes = call("aten::aminmax", {wide}, "_min");
  Value* low = call("aten::clamp_max", {extremes->outputs()[0], 0}, "_low")->output();
  Value* high = call("aten::clamp_min", {extremes->outputs()[1], 0}, "_high")->output();
  Value* width = call("aten::sub.Tensor", {high, low}, "_width")->output();
  Value* step = call("aten::div.Scalar", {width, last}, "_step")->output();
  Value* scale = call("aten::clamp_min", {step, static_cast<double>(FLT_MIN)}, "_scale")->output();
  Value* below = call("aten::div.Tensor", {low, scale}, "_below")->output();
  Value* steps =
      call("aten::round", {call("aten::neg", {below}, "_zero")->output()}, "_steps")->output();
  Value* zero = call("aten::to.dtype", {steps, c10::ScalarType::Int}, "_zero_point")->output();
  Node* rounded = call("aten::fake_quantize_per_tensor_affine.tensor_qparams",
                       {site.value, scale, zero, int64_t{0}, last}, "_rounded");
  rounded->output()->type = site.value->type;
  redirect(graph, site, rounded->output());
}

}  // namespace

class QuantizeDynamic final : public PassWith<QuantizeDynamicOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.dynamic",
      "Rounds weights once and activations as they come",
      Needs::kWeights,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Jacob et al., Quantization and Training of Neural Networks for Efficient "
      "Integer-Arithmetic-Only Inference, CVPR 2018"};

  void check(const Model& model, const Options&) const override {
    require_graph(model, "activations to round", ", or use quantize.weights");
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    check(model, options);
    std::vector<Weight> selected = weights(model, options.where);
    const RoundToNearest how{options.bits, true, options.granularity, options.range,
                             options.percentile};
    std::vector<ActivationRead> reads;
    QuantizedWeights quantized;
    int64_t activations = 0;
    bool allowed = true;
    for (Weight& weight : selected) {
      std::vector<ActivationRead> mine = layer_reads(weight, options.activations);
      if (mine.empty()) {
        leave_alone(weight,
                    "no layer multiplies an activation with it; quantize.weights can round it",
                    context);
        continue;
      }
      if (const std::string reason = unless_quantized(weight); !reason.empty()) {
        context.message(fmt::format("{}: its weight is left alone, {}", weight.name(), reason));
        context.count("weights_left_alone");
      } else {
        if (!(allowed = context.begin(weight.name()))) break;
        quantized.encode(
            weight, round_to_nearest(weight.effective(), weight.output_dim(), how, weight.name()));
      }
      for (ActivationRead& read : mine) reads.push_back(std::move(read));
    }
    for (const ActivationSite& site : activation_sites(model.graph(), reads)) {
      if (!allowed || !context.begin(site.value->name())) break;
      round_dynamically(model.graph(), site);
      ++activations;
    }
    quantized.report(context);
    context.count("activations_quantized", activations);
    return quantized.any() || activations > 0 ? Change::kSome : Change::kNone;
  }
};

COMPRESS_PASS(QuantizeDynamic)

}  // namespace compress
