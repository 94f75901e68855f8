// Zeroes weights and lets the others make up for them, so that the layer's output changes least.
//
// Columns are settled one after another; which weights of a block of columns go is decided when its
// turn comes (passes/second_order/prune_columns.h). Layers follow one another too: each sees its
// inputs as the pruned layers before it make them.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/prune/keep_largest.h"
#include "passes/prune/prune_layer.h"
#include "passes/second_order/allocate_zeros.h"
#include "passes/second_order/second_order_options.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

namespace compress {

enum class Allocation { kUniform, kLayerwise };
inline std::vector<std::string_view> option_names(Allocation) { return {"uniform", "layerwise"}; }

struct PruneSparseGptOptions : SecondOrderOptions, NOfMOptions {
  double sparsity = 0.5;
  Allocation allocation = Allocation::kUniform;
  int64_t block = 128;

  template <class Visitor>
  void visit(Visitor& field) {
    field("sparsity", sparsity,
          "Share of the selected weights to zero, those that are zeroed already included; has no "
          "effect with `m`.")
        .range(0, 1);
    field("allocation", allocation,
          "Whether each weight gets the same share of zeros, or the one that keeps the sum of the "
          "layers' relative output errors least.");
    visit_n_of_m(field);
    field("block", block, "Columns whose zeros are chosen together, if they may be anywhere.")
        .range(1, 1 << 20);
    visit_common(field);
  }
  void validate(Problems& problems) const {
    validate_n_of_m(problems);
    if (m > 0 && allocation == Allocation::kLayerwise) {
      problems.add("allocation", "n of m leaves each weight the same share",
                   "leave out `allocation`, or `n` and `m`");
    }
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

  Wishes wishes(const Model& model, const Options& options) const override {
    Wishes wishes;
    if (options.allocation == Allocation::kUniform) return wishes;
    for (const Weight& weight : weights(model)) {
      if (takes_part(weight, options)) wishes.push_back(gram_wish(weight));
    }
    return wishes;
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::map<std::string, int64_t> zeros;
    if (options.allocation == Allocation::kLayerwise) zeros = allocate(model, options, context);
    LayerPruner pruner(context);
    const auto leave_alone = [&](const Weight& weight) {
      return unless_prunable(weight, options.m);
    };
    const auto prune = [&](CalibratedLayer& layer) {
      PruneColumns how = settings(layer.weight, options);
      if (zeros.contains(layer.weight.name())) how.zeros = zeros.at(layer.weight.name());
      const PrunedColumns found = prune_columns(layer.matrix, layer.gram, how, layer.keep);
      pruner.apply(layer, found, options.damping);
    };
    for_each_calibrated_layer(model, options.where, context, options.target, options.damping,
                              leave_alone, prune);
    return pruner.finish();
  }

 private:
  static PruneColumns settings(const Weight& weight, const Options& options) {
    PruneColumns how;
    how.zeros = weight.elements() - kept_count(weight.elements(), options.sparsity);
    how.n = options.n;
    how.m = options.m;
    how.positions =
        weight.elements() / weight.sizes()[weight.output_dim()] / input_channels(weight);
    how.block = options.block;
    how.damping = options.damping;
    return how;
  }

  static bool takes_part(const Weight& weight, const Options& options) {
    return options.where.matches(selector_target(weight)) && no_input_matrix(weight).empty() &&
           unless_prunable(weight, options.m).empty();
  }
  static Wish gram_wish(const Weight& weight) {
    return {weight.layer()->output()->name(), Statistic::kInputGram};
  }

  static int64_t masked(const Weight& weight) {
    const at::Tensor mask = weight.mask();
    return mask.defined() ? mask.numel() - mask.sum().item<int64_t>() : 0;
  }

  // Tries shares of zeros on every layer, its inputs being those of the model as it is.
  static LossCurve try_shares(const Weight& weight, const at::Tensor& gram,
                              const Options& options) {
    const at::Tensor matrix = as_matrix(weight.effective(), weight.output_dim()).to(at::kFloat);
    const at::Tensor mask = weight.mask();
    const at::Tensor keep = mask.defined() ? as_matrix(mask, weight.output_dim()) : mask;
    const int64_t gone = masked(weight);
    LossCurve curve{{0}, {0}};  // of zeros beyond those that are there
    // Finer towards the end, where curves are steep.
    std::vector<double> shares = {0.9, 0.8,  0.7, 0.6,  0.5,  0.4,  0.3,  0.25,
                                  0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01};
    for (double kept = 0.5 * (1 - options.sparsity); kept < 0.01 && kept > 1e-4; kept /= 2) {
      shares.push_back(kept);
    }
    for (const double kept : shares) {
      PruneColumns how = settings(weight, options);
      how.zeros = weight.elements() - kept_count(weight.elements(), 1 - kept);
      if (how.zeros - gone <= curve.zeros.back()) continue;
      const PrunedColumns found = prune_columns(matrix, gram, how, keep);
      curve.zeros.push_back(how.zeros - gone);
      curve.losses.push_back(relative_output_error(matrix, found.weight, gram));
    }
    return curve;
  }

  static std::map<std::string, int64_t> allocate(Model& model, const Options& options,
                                                 PassContext& context) {
    std::vector<LossCurve> curves;
    std::vector<std::string> names;
    std::vector<int64_t> sizes, gone;
    int64_t elements = 0, all_gone = 0;
    for (const Weight& weight : weights(std::as_const(model))) {
      if (!takes_part(weight, options)) continue;
      const at::Tensor& gram = context.statistics().at(gram_wish(weight));
      curves.push_back(try_shares(weight, gram, options));
      names.push_back(weight.name());
      sizes.push_back(weight.elements());
      gone.push_back(masked(weight));
      elements += weight.elements();
      all_gone += gone.back();
    }
    const int64_t total = elements - kept_count(elements, options.sparsity);
    const std::vector<int64_t> given =
        allocate_zeros(curves, std::max<int64_t>(total - all_gone, 0));
    std::map<std::string, int64_t> zeros;
    for (size_t i = 0; i < names.size(); ++i) {
      const int64_t own = gone[i] + given[i];
      zeros[names[i]] = own;
      context.message(
          fmt::format("{}: {:.1f} % zeros", names[i],
                      100.0 * static_cast<double>(own) / static_cast<double>(sizes[i])));
    }
    return zeros;
  }
};

COMPRESS_PASS(PruneSparseGpt)

}  // namespace compress
