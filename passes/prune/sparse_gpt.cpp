// Zeroes weights and lets the others make up for them, so that the layer's output changes least.
//
// Columns are settled one after another; which weights of a block of columns go is decided when its
// turn comes (passes/second_order/prune_columns.h). Layers follow one another too: each sees its
// inputs as the pruned layers before it make them.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/prune/keep_largest.h"
#include "passes/second_order/calibrated_layers.h"
#include "passes/second_order/prune_columns.h"

#include <fmt/format.h>

namespace compress {

struct PruneSparseGptOptions {
  double sparsity = 0.5;
  int64_t n = 0;
  int64_t m = 0;
  int64_t block = 128;
  double damping = 0.01;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("sparsity", sparsity,
          "Share of each selected weight to zero, those that are zeroed already included; has no "
          "effect with `m`.")
        .range(0, 1);
    field("n", n, "With `m`: how many weights of each run stay, at most.").range(0, 1024);
    field("m", m, "Length of a run along the input channels; 0 for zeros anywhere.").range(0, 1024);
    field("block", block, "Columns whose zeros are chosen together, if they may be anywhere.")
        .range(1, 1 << 20);
    field("damping", damping,
          "Share of the mean diagonal that is added to the diagonal of the inputs' Gram matrix; "
          "raised tenfold where that is not enough, and a message says so.")
        .range(0, 1);
    field("where", where,
          "The weights to prune; those that have no input matrix (embeddings, recurrent layers) "
          "are left alone, and a message says so.");
  }
  void validate(Problems& problems) const {
    if ((n > 0) != (m > 0)) problems.add("n", "n and m go together", "say both, such as 2 and 4");
    if (n > m) problems.add("n", fmt::format("{} of {} cannot stay", n, m), "n is at most m");
  }
};

class PruneSparseGpt final : public PassWith<PruneSparseGptOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.sparse_gpt",
      "Zeroes weights and lets the others make up for them, layer by layer",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in "
      "One-Shot, ICML 2023"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    int64_t zeroed = 0, layers = 0;
    double error = 0;
    bool changed = false;
    const auto edit = [&](CalibratedLayer& layer) {
      Weight& weight = layer.weight;
      PruneColumns how{0, options.n, options.m, 1, options.block, options.damping};
      how.positions = layer.matrix.size(1) / input_channels(weight);
      how.zeros = weight.elements() - kept_count(weight.elements(), options.sparsity);
      const PrunedColumns found = prune_columns(layer.matrix, layer.gram, how, layer.keep);
      if (found.damping != options.damping) {
        context.message(
            fmt::format("{}: damping raised to {}, the Gram matrix of its inputs is "
                        "singular with {}; more calibration data would help",
                        weight.name(), found.damping, options.damping));
      }
      error += relative_output_error(layer.matrix, found.weight, layer.gram);
      changed |= store_matrix(weight, found.weight);
      const int64_t masked = mask_matrix(weight, found.keep);
      changed |= masked > 0;
      zeroed += masked;
      ++layers;
    };
    const auto leave_alone = [&](const Weight& weight) {
      if (options.m > 0 && input_channels(weight) < options.m) {
        return fmt::format("its {} input channels make no run of {}", input_channels(weight),
                           options.m);
      }
      return unless_stored(weight);
    };
    for_each_calibrated_layer(model, options.where, context, leave_alone, edit);
    context.count("weights_zeroed", zeroed);
    if (layers == 0) return Change::kNone;
    context.measure("mean_relative_output_error", error / static_cast<double>(layers));
    return changed ? Change::kSome : Change::kNone;
  }

 private:
  static int64_t input_channels(const Weight& weight) { return weight.sizes()[weight.input_dim()]; }
};

COMPRESS_PASS(PruneSparseGpt)

}  // namespace compress
