// The grid of a uniform quantizer, and the search for one of small error.

#pragma once

#include "compress/encoding.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace compress {

/// Codes 0 .. last() of a matrix, one scale a row: value = (code - zero) * scale.
struct UniformGrid {
  int bits = 4;
  bool symmetric = true;
  at::Tensor scale;  ///< float [rows, 1], positive
  at::Tensor zero;   ///< float [rows, 1], the code of 0

  int64_t last() const { return (int64_t{1} << bits) - 1; }
};

/// The grid of codes that were found by `round_to_nearest` with a scale a row.
UniformGrid grid_of(const QuantizedTensor& quantized);

/// Of the ranges that are 1 %, 2 %, ... 100 % of each row's (0 included), the one whose rounding
/// has the least sum of |error|^power; of equals the widest. A power of 2.4 is that of BRECQ's and
/// QDrop's published settings (Li et al., ICLR 2021; Wei et al., ICLR 2022). The rounding is that
/// of `RoundToNearest`. Rows of zeros get scale 1. `matrix` is float [rows, columns].
UniformGrid least_error_grid(const at::Tensor& matrix, int bits, bool symmetric,
                             double power = 2.4);

/// The nearest codes, float [rows, columns].
at::Tensor nearest_codes(const at::Tensor& matrix, const UniformGrid& grid);

/// A weight of the given codes. `codes` are integers in [rows, columns]; the weight has `sizes`.
QuantizedTensor with_codes(const at::Tensor& codes, const UniformGrid& grid,
                           const std::vector<int64_t>& sizes, int64_t channel_dim,
                           at::ScalarType dtype);

}  // namespace compress
