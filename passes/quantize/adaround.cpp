// AdaRound: rounds each weight up or down, whichever serves the output of its layer.
//
// Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020: equation
// 25, with the input from the layers that are quantized already and the activation function inside
// the error. The steps of activations are learned afterwards.

#include "compress/pass.h"
#include "passes/quantize/reconstruct_options.h"

namespace compress {

struct QuantizeAdaroundOptions : AdaptiveRoundingOptions {
  int64_t step_iterations = 100;

  template <class Visitor>
  void visit(Visitor& field) {
    visit_rounding(field);
    field("step_iterations", step_iterations,
          "Steps on the ranges of activations of each layer, once its weights are decided.")
        .range(1, 1000000);
  }
  void validate(Problems& problems) const { validate_common(problems); }
};

class QuantizeAdaround final : public PassWith<QuantizeAdaroundOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.adaround",
      "Rounds weights up or down as the output of their layer wants it",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, ICML 2020"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    Reconstruction settings = options.rounding();
    settings.units = UnitKind::kLayer;
    settings.step_iterations = options.step_iterations;
    return reconstruct(model, weights(model, options.where), settings, context);
  }
};

COMPRESS_PASS(QuantizeAdaround)

}  // namespace compress
