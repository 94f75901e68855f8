// Zeroes the weights of least magnitude.
//
// The baseline that every other pruning pass is judged against: it needs no data and no training.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/prune/keep_largest.h"

namespace compress {

struct PruneMagnitudeOptions {
  double sparsity = 0.5;
  Scope scope = Scope::kTensor;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("sparsity", sparsity,
          "Share of the selected weights to zero, those that are zeroed already included; at least "
          "one weight of each threshold stays.")
        .range(0.0, 1.0);
    field("scope", scope, "What shares one threshold.");
    field("where", where, "The weights to prune.");
  }
};

class PruneMagnitude final : public PassWith<PruneMagnitudeOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.magnitude",
      "Zeroes the weights of least magnitude",
      Needs::kWeights,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS "
      "2015"};

  Locality locality(const Options& options) const override {
    return options.scope == Scope::kTensor ? Locality::kTensor : Locality::kModel;
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    const std::vector<WeightSet> sets = weight_sets(selected, options.scope);
    int64_t zeroed = 0, done = 0;
    for (const WeightSet& set : sets) {
      if (!context.begin(set.name.empty() ? "all selected weights" : set.name)) break;
      std::vector<at::Tensor> tensors;
      std::vector<std::string> names;
      for (const Weight* weight : set.weights) {
        tensors.push_back(weight->effective());
        names.push_back(weight->name());
      }
      const int64_t count = kept_count(set.elements(), options.sparsity);
      const std::vector<at::Tensor> masks = keep_largest(tensors, count, names);
      tensors.clear();
      for (size_t i = 0; i < masks.size(); ++i) zeroed += set.weights[i]->set_mask(masks[i]);
      context.progress(++done, static_cast<int64_t>(sets.size()));
    }
    context.count("weights_zeroed", zeroed);
    return zeroed > 0 ? Change::kSome : Change::kNone;
  }
};

COMPRESS_PASS(PruneMagnitude)

}  // namespace compress
