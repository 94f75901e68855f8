// BRECQ: rounds the weights of a block together, as the block's output wants it.
//
// Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", ICLR
// 2021: the variables of AdaRound on a residual block at a time, with the plain squared error that
// the authors' program takes by default, or weighed by the Fisher information (equation 10); the
// steps of activations are learned afterwards.

#include "compress/pass.h"
#include "passes/quantize/reconstruct_options.h"

namespace compress {

struct QuantizeBrecqOptions : AdaptiveRoundingOptions {
  int64_t step_iterations = 100;
  OutputLoss loss = OutputLoss::kSquared;

  template <class Visitor>
  void visit(Visitor& field) {
    visit_rounding(field);
    field("step_iterations", step_iterations,
          "Steps on the ranges of activations of each block, once its weights are decided.")
        .range(1, 1000000);
    field("loss", loss,
          "What differences of a block's outputs count: all the same, or `fisher`, each by the "
          "squared slope of the network's predictions (all the same where these do not differ); "
          "needs logits as first output.");
  }
  void validate(Problems& problems) const { validate_common(problems); }
};

class QuantizeBrecq final : public PassWith<QuantizeBrecqOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.brecq",
      "Rounds the weights of a block up or down as the output of the block wants it",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Li et al., BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction, "
      "ICLR 2021"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    Reconstruction settings = options.rounding();
    settings.units = UnitKind::kBlock;
    settings.step_iterations = options.step_iterations;
    settings.loss = options.loss;
    settings.temperature = 1;
    return reconstruct(model, weights(model, options.where), settings, context);
  }
};

COMPRESS_PASS(QuantizeBrecq)

}  // namespace compress
