// Rounds weights by half-quadratic optimisation of their zero points.
//
// Without data, in seconds for a large model: the zero points move so that many errors become tiny
// and a few stay, instead of all being middling. They are fractions, so that no weight needs to be
// exactly 0. Badri & Shaji, 2023.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/quantize/half_quadratic.h"
#include "passes/quantize/quantized_weights.h"

namespace compress {

struct QuantizeHqqOptions {
  int bits = 4;
  int64_t group_size = 64;
  int iterations = 20;
  double norm = 0.7;
  double beta = 10;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("bits", bits, "Bits of a code.").range(2, 8);
    field(
        "group_size", group_size,
        "Weights of an output channel that share a scale and a zero point; a channel's last group "
        "may be shorter.")
        .range(1, 1e9);
    field("iterations", iterations, "Steps of a group, at most; it stops when its error does.")
        .range(1, 10000);
    field("norm", norm, "The p of the Lp norm of the error; smaller ones mind outliers less.")
        .range(0.05, 1);
    field("beta", beta, "Greater values leave smaller errors to the outliers' part.")
        .range(0.01, 1e6);
    field("where", where, "The weights to quantize.");
  }
};

class QuantizeHqq final : public PassWith<QuantizeHqqOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.hqq",
      "Rounds weights with zero points that favour many tiny errors",
      Needs::kWeights,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kTensor,
      "Badri & Shaji, Half-Quadratic Quantization of Large Machine Learning Models, Mobius Labs, "
      "2023"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    const HalfQuadratic how{options.bits, options.group_size, options.iterations, options.norm,
                            options.beta};
    QuantizedWeights quantized;
    int64_t done = 0;
    for (Weight& weight : selected) {
      context.progress(done++, static_cast<int64_t>(selected.size()));
      if (const std::string reason = unless_quantized(weight); !reason.empty()) {
        leave_alone(weight, reason, context);
        continue;
      }
      if (!context.begin(weight.name())) break;
      const at::Tensor mask = weight.mask();
      const QuantizedTensor codes =
          half_quadratic(weight.effective(), weight.output_dim(), how, weight.name());
      quantized.encode(weight, codes);
      if (mask.defined()) weight.set_mask(mask);  // no code stands for exactly 0
    }
    quantized.report(context);
    return quantized.any() ? Change::kSome : Change::kNone;
  }
};

COMPRESS_PASS(QuantizeHqq)

}  // namespace compress
