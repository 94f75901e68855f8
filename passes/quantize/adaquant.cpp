// AdaQuant: moves the weights of a layer, its scales and its bias until the rounded layer's output
// is right.
//
// Hubara et al., "Accurate Post Training Quantization With Small Calibration Sets", ICML 2021,
// equation 2, one layer after the other on the input from the layers that are quantized already.
// Unlike AdaRound a weight may end several codes away. Zero points stay. Learning rates are in
// steps of the quantizer, so that they suit any layer.

#include "compress/pass.h"
#include "passes/quantize/reconstruct_options.h"

namespace compress {

struct QuantizeAdaquantOptions : ReconstructOptions {
  double scale_rate = 0.1;
  double bias_rate = 1e-3;
  double step_rate = 1e-3;

  template <class Visitor>
  void visit(Visitor& field) {
    visit_common(field);
    field("scale_rate", scale_rate,
          "Learning rate of the weights' scales, relative to themselves and to `rate`; 0: they "
          "stay.")
        .at_least(0);
    field("bias_rate", bias_rate, "Learning rate of biases (Adam); 0: they stay.").at_least(0);
    field("step_rate", step_rate, "Learning rate of the steps of activations (Adam).").at_least(0);
  }
  void validate(Problems& problems) const { validate_common(problems); }
};

class QuantizeAdaquant final : public PassWith<QuantizeAdaquantOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.adaquant",
      "Moves weights, scales and biases of a layer until its rounded output is right",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Hubara et al., Accurate Post Training Quantization With Small Calibration Sets, ICML 2021"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    Reconstruction settings = options.common();
    settings.units = UnitKind::kLayer;
    settings.free_weights = true;
    settings.scale_rate = options.scale_rate;
    settings.bias_rate = options.bias_rate;
    settings.step_rate = options.step_rate;
    return reconstruct(model, weights(model, options.where), settings, context);
  }
};

COMPRESS_PASS(QuantizeAdaquant)

}  // namespace compress
