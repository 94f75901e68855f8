// What channels do on data: how often they are zero, and of what rank their maps are.

#pragma once

#include "compress/calibrate/statistics.h"
#include "passes/structured/channel_scores.h"

#include <ATen/core/Tensor.h>

#include <vector>

namespace compress {

/// Share of elements of each channel that are not zero, double [channels]. Hu et al., "Network
/// Trimming", 2016, remove the channels whose average percentage of zeros (APoZ) is largest.
at::Tensor share_of_nonzeros(const at::Tensor& activation, int64_t dim);

/// Mean rank of the maps of each channel, double [channels], for [samples, channels, height,
/// width]. Lin et al., "HRank: Filter Pruning using High-Rank Feature Map", CVPR 2020, equation 6.
at::Tensor mean_rank(const at::Tensor& maps);

/// Scores of the dimensions of activations by kApoz or kHrank, over all batches. For each group
/// they are taken behind its nonlinearities; where it has none, at the outputs of its layers.
/// kHrank looks at images only, 64 of them.
std::vector<DimScores> activity_scores(const Model& model, const ChannelGroups& groups,
                                       ChannelCriterion criterion, const BatchSource& batches);

/// What the output of a layer loses when an input channel goes and the weights of the others make
/// up for it as well as they can, as a share of the output's energy: of channel c, whose columns
/// are S, tr(W_S ((H^-1)_SS)^-1 W_S^T) / tr(W H W^T), double [channels]. `weight` is [rows,
/// channels * each], `gram` (H, its diagonal raised by 1 % of the mean) double [channels * each,
/// channels * each]. Kurtic et al., "ZipLM: Inference-Aware Structured Pruning of Language Models",
/// NeurIPS 2023.
at::Tensor obs_scores(const at::Tensor& weight, const at::Tensor& gram, int64_t each);

/// The same for all layers whose inputs can be seen as a matrix; grouped convolutions say nothing.
std::vector<DimScores> obs_scores(const Model& model, const BatchSource& batches);

}  // namespace compress
