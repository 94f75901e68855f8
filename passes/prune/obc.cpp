// Removes weights one after the other, each time the one that all others can make up for best.
//
// Exact where prune.sparse_gpt goes through the columns in one order, and dearer: the cube of the
// inputs for every output. For layers of up to some thousand inputs.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/prune/keep_largest.h"
#include "passes/prune/prune_layer.h"
#include "passes/second_order/prune_exactly.h"
#include "passes/second_order/second_order_options.h"

namespace compress {

struct PruneObcOptions : SecondOrderOptions, NOfMOptions {
  double sparsity = 0.5;

  template <class Visitor>
  void visit(Visitor& field) {
    field("sparsity", sparsity,
          "Share of each selected weight to zero, those that are zeroed already included; its "
          "outputs get different shares. Has no effect with `m`.")
        .range(0, 1);
    visit_n_of_m(field);
    visit_common(field);
  }
  void validate(Problems& problems) const { validate_n_of_m(problems); }
};

class PruneObc final : public PassWith<PruneObcOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.obc",
      "Removes weights one after the other, the rest making up for each",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Frantar and Alistarh, Optimal Brain Compression: A Framework for Accurate Post-Training "
      "Quantization and Pruning, NeurIPS 2022"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    LayerPruner pruner(context);
    const auto leave_alone = [&](const Weight& weight) {
      return unless_prunable(weight, options.m);
    };
    for_each_calibrated_layer(
        model, options.where, context, options.target, options.damping, leave_alone,
        [&](auto& layer) {
          const Weight& weight = layer.weight;
          PruneColumns how;
          how.zeros = weight.elements() - kept_count(weight.elements(), options.sparsity);
          how.n = options.n;
          how.m = options.m;
          how.positions = layer.matrix.size(1) / input_channels(weight);
          how.damping = options.damping;
          pruner.apply(layer, prune_exactly(layer.matrix, layer.gram, how, layer.keep),
                       options.damping);
        });
    return pruner.finish();
  }
};

COMPRESS_PASS(PruneObc)

}  // namespace compress
