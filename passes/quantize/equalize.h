// The arithmetic of cross-layer equalization.
//
// Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV
// 2019.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace compress {

/// A weight as [groups, output channels of one, input channels of one, taps], double, from one of
/// any layer but a transposed convolution; and back in its dtype.
at::Tensor by_channels(const at::Tensor& weight, int64_t output_dim, int64_t groups,
                       int64_t inputs);
at::Tensor from_channels(const at::Tensor& channels, const at::Tensor& like, int64_t output_dim);

/// The greatest magnitude of each output and of each input channel of such a weight.
at::Tensor output_ranges(const at::Tensor& channels);
at::Tensor input_ranges(const at::Tensor& channels);
/// The weight with its output or its input channels multiplied by `factors`.
at::Tensor scale_outputs(const at::Tensor& channels, const at::Tensor& factors);
at::Tensor scale_inputs(const at::Tensor& channels, const at::Tensor& factors);

/// s = sqrt(first / second) for each channel between two layers: dividing the outputs of the first
/// by s and multiplying the inputs of the second gives both the range sqrt(first * second)
/// (equation 11). 1 where a range is zero.
at::Tensor equalizing_factors(const at::Tensor& first, const at::Tensor& second);

/// c = max(0, shift - 3 |deviation|): what can be taken off a channel of that mean and deviation in
/// front of a ReLU without ever reaching its kink, three deviations out (section 4.1.3).
at::Tensor absorbed_bias(const at::Tensor& shift, const at::Tensor& deviation);
/// What a layer adds to its outputs when its input is c all over: sum of weight * c.
at::Tensor response_to(const at::Tensor& channels, const at::Tensor& c);

}  // namespace compress
