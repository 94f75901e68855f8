// What all passes that remove channels can be told.

#pragma once

#include "compress/budget/budget.h"
#include "compress/options.h"
#include "compress/selector.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace compress {

/// What says how much a channel matters. A channel's members are the slabs that go with it: rows of
/// the weights that make it, columns of those that read it, scales of norms.
enum class ChannelCriterion {
  kL1,         ///< sum of absolute values of a slab (Li et al., ICLR 2017)
  kL2,         ///< sum of squares of a slab
  kBatchNorm,  ///< |scale| of the norms on the channel (Liu et al., ICCV 2017)
  kFpgm,       ///< sum of distances to the layer's other filters (He et al., CVPR 2019)
  kTaylor,     ///< (sum of w dL/dw over a slab)^2, mean over batches (Molchanov et al., CVPR 2019)
  kLamp,       ///< square of a slab over that of all that are no smaller (Lee et al., ICLR 2021)
  kApoz,       ///< share of activations that are not zero (Hu et al., 2016)
  kHrank,      ///< mean rank of the feature map (Lin et al., CVPR 2020)
  kObs,        ///< error of the layers behind once their other weights make up for the channel
               ///< (Kurtic et al., NeurIPS 2023)
  kRandom,
};
inline std::vector<std::string_view> option_names(ChannelCriterion) {
  return {"l1", "l2", "batch_norm", "fpgm", "taylor", "lamp", "apoz", "hrank", "obs", "random"};
}

/// Whether the criterion looks at what enters and leaves layers.
inline bool needs_activations(ChannelCriterion criterion) {
  return criterion == ChannelCriterion::kApoz || criterion == ChannelCriterion::kHrank ||
         criterion == ChannelCriterion::kObs;
}

/// How the scores of a channel's members become one.
enum class ScoreReduction { kMean, kSum, kMax, kProduct, kFirst };
inline std::vector<std::string_view> option_names(ScoreReduction) {
  return {"mean", "sum", "max", "product", "first"};
}

/// What makes the scores of different groups comparable: divided by their mean, sum or maximum,
/// moved to [0, 1], or to mean 0 and deviation 1.
enum class ScoreNormalization { kMean, kNone, kSum, kMax, kRange, kGaussian };
inline std::vector<std::string_view> option_names(ScoreNormalization) {
  return {"mean", "none", "sum", "max", "range", "gaussian"};
}

/// What competes: the channels of one group, so that every group loses the same share, or all.
enum class ChannelScope { kLayer, kModel };
inline std::vector<std::string_view> option_names(ChannelScope) { return {"layer", "model"}; }

struct ChannelOptions {
  Budget budget = Budget::macs(0.5);
  ChannelCriterion criterion = ChannelCriterion::kL2;
  ChannelScope scope = ChannelScope::kModel;
  ScoreReduction reduction = ScoreReduction::kMean;
  ScoreNormalization normalization = ScoreNormalization::kMean;
  bool per_cost = false;
  double most = 0.9;
  int64_t round_to = 1;
  bool exact = false;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("budget", budget, "What the model may cost in the end.");
    field("criterion", criterion, "What says how much a channel matters.");
    field("scope", scope, "What competes: the channels of each group, or all of the model.");
    field("reduction", reduction, "How the scores of a channel's tensors become one.");
    field("normalization", normalization,
          "What makes the scores of groups comparable; `lamp` and `random` are so by themselves.");
    field("per_cost", per_cost,
          "Divide scores by what a channel of the group alone saves of the budget, so that those "
          "go first that cost most for what they do; of use with scope `model`.");
    field("most", most, "Largest share of a group's channels to remove.").range(0.0, 1.0);
    field("round_to", round_to, "Leave a multiple of so many channels of each group.")
        .range(1, 4096);
    field("exact", exact,
          "Leave channels alone over which statistics are taken (layer norm): removing those is "
          "more than zeroing them.");
    field("where", where,
          "The layers whose output channels may go; where a residual or a depthwise convolution "
          "joins several, all of them must be selected.");
  }

  void validate(Problems& problems) const {
    if (per_cost && normalization == ScoreNormalization::kGaussian) {
      problems.add("per_cost", "scores around 0 cannot be divided by what a channel saves",
                   "take another `normalization`");
    }
  }
};

}  // namespace compress
