// How much of the activations' range SmoothQuant moves into the weights.

#pragma once

#include <ATen/core/Tensor.h>

namespace compress {

/// s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), double [channels], from the greatest magnitudes of
/// each input channel over the data and over all weights that read it. 1 for a channel that is
/// always 0 or whose weights all are: there is nothing to balance. Xiao et al., "SmoothQuant:
/// Accurate and Efficient Post-Training Quantization for Large Language Models", ICML 2023,
/// equation 4.
at::Tensor smooth_scales(const at::Tensor& activations, const at::Tensor& weights, double alpha);

}  // namespace compress
