// Half-quadratic quantization: zero points that make an outlier-tolerant norm of the error small.
//
// Badri & Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", Mobius Labs, 2023.

#pragma once

#include "compress/encoding.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace compress {

struct HalfQuadratic {
  int bits = 4;
  int64_t group_size = 64;  ///< columns; a row's last group may be shorter
  int iterations = 20;      ///< at most; 0: scale and zero point of the range
  double norm = 0.7;        ///< the p of the error's Lp norm, at most 1
  double beta = 10;         ///< weight of the split between error and its sparse part
  bool half_scales = true;  ///< scales and zero points in 16 bits where these are precise enough
};

/// Quantizes `weight` (floating point) with rows along `channel_dim`. A group has the scale of its
/// range, (max - min) / (2^b - 1), 1 where the range is below 1e-4, and a fractional zero point,
/// first -min / scale, then in turns with the sparse part e of the error (equations 3 to 6)
///   e = shrink(w - decoded), shrink(x) = sign(x) max(0, |x| - |x|^(p - 1) / beta)
///   zero_point = mean(code - (w - e) / scale)
/// until the group's mean absolute error stops falling. As in the authors' code, the zero point of
/// the step that saw this is kept; unlike there, each group stops on its own. 16 bits are precise
/// enough where no zero point lies outside the codes. Throws Error(kRunFailed) at `name` if an
/// element is not finite.
QuantizedTensor half_quadratic(const at::Tensor& weight, int64_t channel_dim,
                               const HalfQuadratic& how, const std::string& name = {});

}  // namespace compress
