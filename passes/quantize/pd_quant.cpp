// PD-Quant: reconstructs blocks with an eye on what the network predicts in the end.
//
// Liu et al., "PD-Quant: Post-Training Quantization based on Prediction Difference Metric", CVPR
// 2023: QDrop's loss, and the divergence of the full-precision network's predictions from those
// that its remaining part makes of the quantized block's output (equation 4). The paper's
// correction of the block's inputs towards the statistics of batch norms is not part of it.

#include "compress/pass.h"
#include "passes/quantize/reconstruct_options.h"

namespace compress {

struct QuantizePdQuantOptions : AdaptiveRoundingOptions {
  double drop = 0.5;
  double prediction = 10;
  double temperature = 4;

  QuantizePdQuantOptions() { activations = 4; }

  template <class Visitor>
  void visit(Visitor& field) {
    visit_rounding(field);
    field("drop", drop, "Probability that an element of an activation is not rounded in a step.")
        .range(0.0, 1.0);
    field("prediction", prediction, "Factor of the divergence of predictions.").at_least(0);
    field("temperature", temperature, "What logits are divided by before they are compared.")
        .at_least(0.01);
  }
  void validate(Problems& problems) const { validate_common(problems); }
};

class QuantizePdQuant final : public PassWith<QuantizePdQuantOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.pd_quant",
      "Rounds the weights of a block as its output and the network's predictions want it",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Liu et al., PD-Quant: Post-Training Quantization based on Prediction Difference Metric, "
      "CVPR 2023"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    Reconstruction settings = options.rounding();
    settings.units = UnitKind::kBlock;
    settings.drop = options.drop;
    settings.prediction = options.prediction;
    settings.temperature = options.temperature;
    return reconstruct(model, weights(model, options.where), settings, context);
  }
};

COMPRESS_PASS(QuantizePdQuant)

}  // namespace compress
