// QDrop: reconstructs blocks while the rounding of activations comes and goes.
//
// Wei et al., "QDrop: Randomly Dropping Quantization for Extremely Low-bit Post-Training
// Quantization", ICLR 2022: BRECQ's blocks, where each element of an activation, and of the input
// of the block, is rounded or as in full precision by chance. Weights that suit both lie in a
// flatter place. The steps of activations are learned at the same time.

#include "compress/pass.h"
#include "passes/quantize/reconstruct_options.h"

namespace compress {

struct QuantizeQdropOptions : AdaptiveRoundingOptions {
  double drop = 0.5;

  QuantizeQdropOptions() { activations = 4; }

  template <class Visitor>
  void visit(Visitor& field) {
    visit_rounding(field);
    field("drop", drop, "Probability that an element of an activation is not rounded in a step.")
        .range(0.0, 1.0);
  }
  void validate(Problems& problems) const { validate_common(problems); }
};

class QuantizeQdrop final : public PassWith<QuantizeQdropOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.qdrop",
      "Rounds the weights of a block while the rounding of activations drops out by chance",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Wei et al., QDrop: Randomly Dropping Quantization for Extremely Low-bit Post-Training "
      "Quantization, ICLR 2022"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    Reconstruction settings = options.rounding();
    settings.units = UnitKind::kBlock;
    settings.drop = options.drop;
    return reconstruct(model, weights(model, options.where), settings, context);
  }
};

COMPRESS_PASS(QuantizeQdrop)

}  // namespace compress
