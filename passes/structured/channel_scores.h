// How much channels matter: scores of indices of tensors, combined over what goes together.

#pragma once

#include "compress/graph/channels.h"
#include "compress/model.h"
#include "compress/pass_context.h"
#include "passes/structured/channel_options.h"

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace compress {

/// A score for each unit of each group, [group][unit]; empty where nothing is known of a group.
using ChannelScores = std::vector<std::vector<double>>;

/// A score for each index of a dimension of a value.
struct DimScores {
  const Value* value = nullptr;
  int64_t dim = 0;
  at::Tensor scores;  ///< double [size of the dimension]
};

/// Double [size of `dim`].
at::Tensor sum_over_others(const at::Tensor& tensor, int64_t dim);

/// Scores of the dimensions of weights and of the scales of norms, for the criteria that look at
/// weights alone: kL1, kL2, kBatchNorm, kFpgm, kLamp (the squares that it divides).
std::vector<DimScores> weight_scores(const Model& model, ChannelCriterion criterion);

/// First-order Taylor scores, collected over batches: (sum of w dL/dw over a slab)^2.
class TaylorScores {
 public:
  /// Adds the gradients that the model's parameters have now.
  void add(const Model& model);
  /// Mean over what was added; empty if nothing was.
  std::vector<DimScores> scores(const Model& model) const;
  bool empty() const { return batches_ == 0; }
  void clear();

  /// By tensor and dimension: sums; for checkpoints.
  std::map<std::string, at::Tensor> state() const;
  void restore(const std::map<std::string, at::Tensor>& state);

 private:
  std::map<std::pair<std::string, int64_t>, at::Tensor> sums_;
  int64_t batches_ = 0;
};

/// A unit's score is the sum over its indices of a dimension, reduced over the dimensions that it
/// cuts. Groups that no dimension speaks of stay empty.
ChannelScores combine(const ChannelGroups& groups, const std::vector<DimScores>& dims,
                      ScoreReduction reduction);

/// Uniform in [0, 1).
ChannelScores random_scores(const ChannelGroups& groups, at::Generator generator);

/// Lee et al., ICLR 2021, equation 3: each over the sum of itself and all that are no smaller (of
/// equal ones those that come later).
std::vector<double> lamp(const std::vector<double>& squares);

void normalize(std::vector<double>& scores, ScoreNormalization how);

/// Combined as the options say: LAMP's sums, then normalised.
ChannelScores finish_scores(const ChannelGroups& groups, const std::vector<DimScores>& dims,
                            const ChannelOptions& options);

/// By a criterion that looks at weights alone, or at random.
ChannelScores data_free_scores(const Model& model, const ChannelGroups& groups,
                               const ChannelOptions& options, const PassContext& context);

}  // namespace compress
