// PD-Quant: reconstructs blocks with an eye on what the network predicts in the end.
//
// Liu et al., "PD-Quant: Post-Training Quantization based on Prediction Difference Metric", CVPR
// 2023: QDrop's loss, and the divergence of the full-precision network's predictions from those
// that its remaining part makes of the quantized block's output (equation 4). Inputs and targets of
// a block are first moved towards the statistics of its batch norms (equation 8), for which it
// must be put in front of fold.batch_norm.

#include "compress/pass.h"
#include "passes/quantize/reconstruct_options.h"

namespace compress {

struct QuantizePdQuantOptions : AdaptiveRoundingOptions {
  double drop = 0.5;
  double prediction = 10;
  double temperature = 4;
  int64_t correction = 50;
  double correction_rate = 0.01;
  double pull = 50;

  QuantizePdQuantOptions() { activations = 4; }

  template <class Visitor>
  void visit(Visitor& field) {
    visit_rounding(field);
    field("drop", drop, "Probability that an element of an activation is not rounded in a step.")
        .range(0.0, 1.0);
    field("prediction", prediction, "Factor of the divergence of predictions.").at_least(0);
    field("temperature", temperature, "What logits are divided by before they are compared.")
        .at_least(0.01);
    field("correction", correction,
          "Steps that move the inputs of a block towards the statistics of its batch norms; 0: "
          "they stay. The paper takes 500 at a rate of 0.001.")
        .range(0, 1000000);
    field("correction_rate", correction_rate, "Their learning rate (Adam).").at_least(0);
    field("pull", pull, "What holds inputs where they were: factor of the squared distance.")
        .at_least(0);
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
    settings.correction = {options.correction, options.correction_rate, options.pull,
                           options.batch_size};
    return reconstruct(model, weights(model, options.where), settings, context);
  }
};

COMPRESS_PASS(QuantizePdQuant)

}  // namespace compress
