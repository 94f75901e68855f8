// Rounds weights to codes of 2 to 8 bits, packed in the file.
//
// Round-to-nearest without data: what every calibrated method is judged against. Codes are integers
// or those of a number format with a codebook. Activations stay as they are. The weight becomes a
// decoding of plain operators (compress/encoding_graph.h).

#include "compress/options_auto.h"
#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/quantize/codebook_formats.h"
#include "passes/quantize/grid.h"
#include "passes/quantize/quantized_weights.h"
#include "passes/quantize/round_to_nearest.h"

#include <fmt/format.h>

namespace compress {

struct QuantizeWeightsOptions {
  WeightFormat format = WeightFormat::kInt;
  OrAuto<int> bits;
  Grid grid = Grid::kSymmetric;
  OrAuto<Granularity> granularity;
  RangeMethod range = RangeMethod::kMinmax;
  double percentile = 99.9;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("format", format,
          "What codes stand for: integers, normal quantiles (nf4), 8-bit floats (fp8, E4M3), or "
          "4-bit floats with power-of-two (mxfp4) or 8-bit float scales (nvfp4).");
    field("bits", bits, "Bits of a code; `auto`: 4, and 8 for fp8. Only integers have a choice.")
        .range(2, 8);
    field("grid", grid,
          "Integer codes around zero, or with a zero point where the range is lopsided.");
    field("granularity", granularity,
          "What shares one scale; a group is a run of weights in one output channel. `auto`: "
          "channel, for nf4 group:64. The blocks of mxfp4 (32) and nvfp4 (16) are fixed.");
    field("range", range, "How the range that integer codes cover is chosen.");
    field("percentile", percentile,
          "Share of the weights inside the range, if that is `percentile`.")
        .range(50, 100);
    field("where", where, "The weights to quantize.");
  }

  void validate(Problems& problems) const {
    if (format == WeightFormat::kInt) return;
    const std::string_view id = option_names(format)[static_cast<size_t>(format)];
    const int width = format_bits(format);
    if (bits.value_or(width) != width) {
      problems.add("bits", fmt::format("{} codes have {} bits, not {}", id, width, *bits.value),
                   "leave `bits` out");
    }
    if (grid != Grid::kSymmetric) {
      problems.add("grid", fmt::format("{} has a grid of its own", id), "leave `grid` out");
    }
    if (range != RangeMethod::kMinmax) {
      problems.add("range", fmt::format("{} always covers the greatest weight of a block", id),
                   "leave `range` out");
    }
    const Granularity own = format_granularity(format);
    if (!has_free_granularity(format) && granularity.value_or(own) != own) {
      problems.add(
          "granularity",
          fmt::format("{} has scales by {}, not by {}", id, own.text(), granularity.value->text()),
          "leave `granularity` out");
    }
  }
};

class QuantizeWeights final : public PassWith<QuantizeWeightsOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.weights", "Rounds weights to codes of 2 to 8 bits, packed in the file",
      Needs::kWeights, Keeps::kShapes | Keeps::kDtypes, Locality::kTensor};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    QuantizedWeights quantized;
    int64_t done = 0;
    for (Weight& weight : selected) {
      context.progress(done++, static_cast<int64_t>(selected.size()));
      if (const std::string reason = unless_quantized(weight); !reason.empty()) {
        leave_alone(weight, reason, context);
        continue;
      }
      if (!context.begin(weight.name())) break;
      quantized.encode(weight, encode(weight, options));
    }
    quantized.report(context);
    return quantized.any() ? Change::kSome : Change::kNone;
  }

 private:
  static QuantizedTensor encode(const Weight& weight, const Options& options) {
    const Granularity granularity =
        options.granularity.value_or(format_granularity(options.format));
    if (options.format != WeightFormat::kInt) {
      return quantize_to(options.format, weight.effective(), weight.output_dim(), granularity,
                         weight.name());
    }
    const RoundToNearest how{options.bits.value_or(4), options.grid == Grid::kSymmetric,
                             granularity, options.range, options.percentile};
    return round_to_nearest(weight.effective(), weight.output_dim(), how, weight.name());
  }
};

COMPRESS_PASS(QuantizeWeights)

}  // namespace compress
