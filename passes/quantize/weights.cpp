// Rounds weights to codes of 2 to 8 bits, packed in the file.
//
// Round-to-nearest without data: what every calibrated method is judged against. Activations stay
// as they are. The weight becomes a decoding of plain operators (compress/encoding_graph.h).

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/quantize/grid.h"
#include "passes/quantize/round_to_nearest.h"

#include <fmt/format.h>

namespace compress {

struct QuantizeWeightsOptions {
  int bits = 4;
  Grid grid = Grid::kSymmetric;
  Granularity granularity = Granularity::channel();
  RangeMethod range = RangeMethod::kMinmax;
  double percentile = 99.9;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("bits", bits, "Bits of a code.").range(2, 8);
    field("grid", grid, "Codes around zero, or with a zero point where the range is lopsided.");
    field("granularity", granularity,
          "What shares one scale; a group is a run of weights in one output channel.");
    field("range", range, "How the range that the codes cover is chosen.");
    field("percentile", percentile,
          "Share of the weights inside the range, if that is `percentile`.")
        .range(50, 100);
    field("where", where, "The weights to quantize.");
  }
};

class QuantizeWeights final : public PassWith<QuantizeWeightsOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.weights", "Rounds weights to codes of 2 to 8 bits, packed in the file",
      Needs::kWeights, Keeps::kShapes | Keeps::kDtypes, Locality::kTensor};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    const RoundToNearest how{options.bits, options.grid == Grid::kSymmetric, options.granularity,
                             options.range, options.percentile};
    int64_t quantized = 0, bits = 0, done = 0;
    for (Weight& weight : selected) {
      context.progress(done++, static_cast<int64_t>(selected.size()));
      if (weight.is_quantized()) {
        context.message(fmt::format("{}: left alone, it is quantized already ({})", weight.name(),
                                    weight.encoding()));
        context.count("weights_left_alone");
        continue;
      }
      if (!context.begin(weight.name())) break;
      const QuantizedTensor codes =
          round_to_nearest(weight.effective(), weight.output_dim(), how, weight.name());
      weight.encode(codes);
      quantized += weight.elements();
      bits += codes.bits_on_disk();
    }
    context.count("weights_quantized", quantized);
    if (quantized > 0) {
      context.measure("bits_per_weight",
                      static_cast<double>(bits) / static_cast<double>(quantized));
    }
    return quantized > 0 ? Change::kSome : Change::kNone;
  }
};

COMPRESS_PASS(QuantizeWeights)

}  // namespace compress
