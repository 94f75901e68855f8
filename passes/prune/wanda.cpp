// Zeroes the weights that pass on least: magnitude times the root mean square of the input.
//
// Needs inputs, but changes no weight that stays. Weights of one output are compared with one
// another; in networks for images, whose outputs differ in weight, those of a whole layer better
// are.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/prune/keep_largest.h"
#include "passes/prune/keep_n_of_m.h"
#include "passes/prune/prune_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

namespace compress {

/// Which weights compete with one another.
enum class WandaScope {
  kOutput,  ///< those of one output, as the paper has it for language models
  kLayer,   ///< all of a layer
};
inline std::vector<std::string_view> option_names(WandaScope) { return {"output", "layer"}; }

struct PruneWandaOptions : NOfMOptions {
  double sparsity = 0.5;
  WandaScope scope = WandaScope::kOutput;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("sparsity", sparsity,
          "Share of the weights to zero, those that are zeroed already included; at least one "
          "stays. Has no effect with `m`.")
        .range(0, 1);
    field("scope", scope,
          "What competes: the weights of each output, or all of a layer. Has no effect with `m`.");
    visit_n_of_m(field);
    field("where", where,
          "The weights to prune; those that have no input matrix (embeddings, recurrent layers) "
          "are left alone, and a message says so.");
  }
  void validate(Problems& problems) const { validate_n_of_m(problems); }
};

class PruneWanda final : public PassWith<PruneWandaOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.wanda",
      "Zeroes the weights of least magnitude times root mean square of their input",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    LayerPruner pruner(context);
    const auto leave_alone = [&](const Weight& weight) {
      return unless_prunable(weight, options.m);
    };
    for_each_calibrated_layer(model, options.where, context, LayerInputs::kPower, leave_alone,
                              [&](auto& layer) { pruner.mask(layer, keep(layer, options)); });
    return pruner.finish();
  }

 private:
  static at::Tensor keep(const CalibratedLayer& layer, const Options& options) {
    const int64_t rows = layer.matrix.size(0), columns = layer.matrix.size(1);
    const int64_t groups = layer.power.size(0);
    const at::Tensor scores = layer.matrix.abs().view({groups, -1, columns}) *
                              layer.power.sqrt().to(at::kFloat).unsqueeze(1);
    const std::string& name = layer.weight.name();
    if (options.m == 0 && options.scope == WandaScope::kLayer) {
      const int64_t kept = kept_count(rows * columns, options.sparsity);
      return keep_largest({scores.view({rows, columns})}, kept, {name})[0];
    }
    if (options.m == 0) {
      const int64_t kept = kept_count(columns, options.sparsity);
      return keep_n_of_m(scores.view({rows, columns}), kept, columns, 1, name);
    }
    const int64_t channels = input_channels(layer.weight);
    return keep_n_of_m(scores.view({rows, channels, -1}), options.n, options.m, 1, name)
        .view({rows, columns});
  }
};

COMPRESS_PASS(PruneWanda)

}  // namespace compress
