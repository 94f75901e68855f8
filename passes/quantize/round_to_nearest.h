// Round-to-nearest quantization of one weight: ranges, scales, codes.

#pragma once

#include "compress/encoding.h"
#include "compress/options.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace compress {

/// Where the range of a quantizer comes from.
enum class RangeMethod {
  kMinmax,      ///< the least and the greatest weight
  kPercentile,  ///< percentiles of the weights; what is outside is clipped
  kMse,         ///< of 80 ranges shrunk in steps of 1 %, the one of least squared error
};
inline std::vector<std::string_view> option_names(RangeMethod) {
  return {"minmax", "percentile", "mse"};
}

/// The grid and how its range is found. Ranges always contain 0, and 0 is always on the grid.
///
/// Symmetric: scale = absmax / (2^(b-1) - 1), codes round(x / scale) in [-2^(b-1), 2^(b-1) - 1];
/// the lowest code is reached only where a range was clipped. Affine: scale = (max - min) / (2^b -
/// 1), zero_point = round(-min / scale), codes round(x / scale) + zero_point in [0, 2^b - 1].
/// Rounding is half to even. A range without a width (all zeros) has scale 1.
struct RoundToNearest {
  int bits = 4;
  bool symmetric = true;
  Granularity granularity = Granularity::channel();
  RangeMethod range = RangeMethod::kMinmax;
  double percentile = 99.9;  ///< of |x| if symmetric; else this one above, 100 minus it below
};

/// Quantizes `weight` (floating point) with rows along `channel_dim`. A group is a run of
/// columns of the matrix (see QuantizedTensor); the last one of a row may be shorter. Throws
/// Error(kRunFailed) at `name` if an element is not finite.
QuantizedTensor round_to_nearest(const at::Tensor& weight, int64_t channel_dim,
                                 const RoundToNearest& how, const std::string& name = {});
/// The same in ATen operators, one step after the other: the oracle.
QuantizedTensor round_to_nearest_reference(const at::Tensor& weight, int64_t channel_dim,
                                           const RoundToNearest& how);

}  // namespace compress
