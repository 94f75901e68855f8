// What rounding a weight adds to the mean of the layer's outputs.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace compress {

/// E[error x] for each output channel: the error of a weight, rounded minus exact, times the mean
/// of each input channel, [channels] (Nagel et al., "Data-Free Quantization through Weight
/// Equalization and Bias Correction", ICCV 2019, equation 17). Every tap of a kernel is taken to
/// see that mean, also those that stand on padding. `error` has the sizes of the weight, not of a
/// transposed convolution. Double [output channels].
at::Tensor expected_output_shift(const at::Tensor& error, const at::Tensor& input_mean,
                                 int64_t output_dim, int64_t groups);

}  // namespace compress
