// Rounds weights to codes so that the layer's output changes least.
//
// Columns are rounded one after another, and those behind make up for the error of those before,
// as far as the inputs of the calibration data tell (passes/second_order/column_factor.h). Layers
// follow one another too: each sees its inputs as the quantized layers before it make them.

#include "compress/encoding_bits.h"
#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/quantize/grid.h"
#include "passes/quantize/quantized_weights.h"
#include "passes/second_order/calibrated_layers.h"
#include "passes/second_order/quantize_columns.h"
#include "passes/second_order/second_order_options.h"

#include <fmt/format.h>

#include <algorithm>

namespace compress {

enum class ColumnRange { kMinmax, kMse };
inline std::vector<std::string_view> option_names(ColumnRange) { return {"minmax", "mse"}; }

struct QuantizeGptqOptions : SecondOrderOptions {
  int bits = 4;
  Grid grid = Grid::kAffine;
  Granularity granularity = Granularity::channel();
  ColumnRange range = ColumnRange::kMse;
  bool act_order = true;

  template <class Visitor>
  void visit(Visitor& field) {
    field("bits", bits, "Bits of a code.").range(2, 8);
    field("grid", grid, "Codes around zero, or with a zero point where the range is lopsided.");
    field("granularity", granularity,
          "What shares one scale; a group is a run of weights in one output channel.");
    field("range", range,
          "How the range that the codes cover is chosen: the extremes, or of 80 smaller ones (and "
          "with zero points one code beside) that of least squared error, each input weighed by "
          "its mean square.");
    field("act_order", act_order,
          "Round columns by falling mean square of their inputs. Groups then have the ranges of "
          "the weights as they came; otherwise those that they have when their turn comes.");
    visit_common(field);
  }
};

class QuantizeGptq final : public PassWith<QuantizeGptqOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.gptq",
      "Rounds weights to codes so that the layer's output changes least",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained "
      "Transformers, ICLR 2023"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    QuantizeColumns how;
    how.grid = {options.bits, options.grid == Grid::kSymmetric,
                options.range == ColumnRange::kMse ? GridRange::kWeighted : GridRange::kMinmax};
    how.granularity = options.granularity;
    how.damping = options.damping;
    how.act_order = how.static_groups = options.act_order;

    QuantizedWeights quantized;
    int64_t layers = 0;
    double error = 0;
    for_each_calibrated_layer(
        model, options.where, context, options.target, options.damping, unless_quantized,
        [&](auto& layer) {
          Weight& weight = layer.weight;
          const ColumnCodes found = quantize_columns(layer.matrix, layer.gram, how, layer.keep);
          report(found, weight, options, context);
          error += relative_output_error(layer.matrix, found.weight, layer.gram);
          quantized.encode(weight, encode(found, weight, how));
          ++layers;
        });
    quantized.report(context);
    if (layers == 0) return Change::kNone;
    context.measure("mean_relative_output_error", error / static_cast<double>(layers));
    return Change::kSome;
  }

 private:
  static QuantizedTensor encode(const ColumnCodes& found, const Weight& weight,
                                const QuantizeColumns& how) {
    QuantizedTensor out;
    out.sizes = weight.sizes();
    out.dtype = weight.dtype();
    out.channel_dim = weight.output_dim();
    out.bits = how.grid.bits;
    out.fields = pack_codes(found.codes, out.bits);
    out.scale = found.scale;
    if (!how.grid.symmetric) out.zero_point = found.zero;
    const bool grouped = how.granularity.kind == Granularity::Kind::kGroup;
    out.group_size = grouped ? std::min(how.granularity.group_size, out.columns()) : out.columns();
    return out;
  }

  static void report(const ColumnCodes& found, const Weight& weight, const Options& options,
                     PassContext& context) {
    if (found.damping != options.damping) {
      context.message(
          fmt::format("{}: damping raised to {}, the Gram matrix of its inputs is "
                      "singular with {}; more calibration data would help",
                      weight.name(), found.damping, options.damping));
    }
    if (found.dead > 0) {
      context.message(
          fmt::format("{}: {} of {} inputs are always zero on the calibration data, "
                      "their weights became zero",
                      weight.name(), found.dead, weight.groups() * found.codes.size(1)));
      context.count("dead_inputs", found.dead);
    }
  }
};

COMPRESS_PASS(QuantizeGptq)

}  // namespace compress
