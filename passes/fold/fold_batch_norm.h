// The arithmetic of folding a batch norm into the layer in front of it.

#pragma once

#include "compress/encoding.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace compress {

/// What a batch norm in eval mode computes, y = (x - mean) / sqrt(variance + eps) * weight + bias,
/// each [channels]; `weight` and `bias` may be undefined (1 and 0).
struct BatchNorm {
  at::Tensor mean, variance, weight, bias;
  double eps = 1e-5;
};

/// weight / sqrt(variance + eps), in double.
at::Tensor channel_factors(const BatchNorm& norm);

/// `weight` with its output channels multiplied by `factors` [channels]. The output channels are
/// dimension `output_dim`; where that is 1 (transposed convolutions), each of `groups` parts of
/// dimension 0 has its own `channels / groups` of them. Computed in double, returned in its dtype.
at::Tensor scale_output_channels(const at::Tensor& weight, const at::Tensor& factors,
                                 int64_t output_dim, int64_t groups);

/// `weight` with its rows multiplied by `factors` [rows]: the same codes with other scales,
/// mirrored where a factor is negative. Null if there are no such codes: of a codebook, and of a
/// symmetric row with a negative factor that has the lowest code, whose mirror image does not
/// exist.
std::optional<QuantizedTensor> scale_rows(const QuantizedTensor& weight, const at::Tensor& factors);

/// (bias - mean) * factor + norm.bias; `bias` may be undefined (0). In `dtype`.
at::Tensor folded_bias(const at::Tensor& bias, const BatchNorm& norm, at::ScalarType dtype);

}  // namespace compress
