// Scales and clips of weights that spare the channels with large activations.
//
// Lin et al., "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and
// Acceleration", MLSys 2024.

#pragma once

#include "passes/quantize/round_to_nearest.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace compress {

/// s = mean|x|^ratio, divided by sqrt(max s * min s), double [channels]; means below 1e-4 count as
/// that. Section 3.2, equation 5, and the authors' normalisation.
at::Tensor activation_scales(const at::Tensor& mean_magnitudes, double ratio);

/// A layer for the search: its weight, and what its inputs are like.
struct AwareLayer {
  at::Tensor weight;       ///< floating, as the layer has it
  int64_t output_dim = 0;  ///< rows of the matrix
  int64_t input_dim = 1;   ///< the dimension of input channels
  at::Tensor gram;         ///< double [groups, columns, columns], see Statistic::kInputGram
};

/// Mean squared error of the layer's outputs when its matrix is off by `error` [rows, columns]:
/// the sum over rows e of e' G e.
double output_error(const at::Tensor& error, const at::Tensor& gram);

/// Of the ratios 0, 1/steps, ..., (steps - 1)/steps, the scales that make the summed output error
/// of all layers least when W * s is quantized and divided by s again. Ratio 0 is no scaling, so
/// the error never exceeds that of rounding.
struct ScaleSearch {
  at::Tensor scales;  ///< double [channels]
  double ratio = 0;
  double error = 0, error_before = 0;
};
ScaleSearch search_scales(const std::vector<AwareLayer>& layers, const at::Tensor& mean_magnitudes,
                          const RoundToNearest& how, int steps);

/// The weight with each group of the quantizer clipped to the share of its greatest magnitude, of
/// 1, 0.95, ..., 0.55, for which the group's part of the outputs has the least error.
at::Tensor clip_weight(const AwareLayer& layer, const RoundToNearest& how);

}  // namespace compress
