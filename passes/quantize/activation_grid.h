// The codes of an activation's quantizer and the numbers that they stand for.

#pragma once

#include <cstdint>

namespace compress {

/// What one quantizer covers; 0 lies inside: low <= 0 <= high.
struct Interval {
  double low = 0, high = 0;

  /// The same with 0 in it.
  static Interval with_zero(double low, double high);
  bool operator==(const Interval&) const = default;
};

/// What the codes of a quantizer may be.
struct ActivationCodes {
  int bits = 8;
  bool symmetric = false;  ///< around zero
  bool is_signed = false;  ///< from -2^(bits-1) on, not from 0
};

/// A quantizer as `aten::fake_quantize_per_tensor_affine` takes it: x is rounded to the number
/// scale * (code - zero_point) with the code clamped to [first, last].
struct ActivationGrid {
  double scale = 1;  ///< representable as a float
  int64_t zero_point = 0;
  int64_t first = 0, last = 255;
};

/// The grid whose codes cover `range` (Jacob et al., CVPR 2018, section 3).
///
/// Affine: scale = (high - low) / (2^b - 1), 0 on the grid by rounding the zero point. Symmetric:
/// scale = max(-low, high) / (2^(b-1) - 1) around a zero point in the middle; but where nothing is
/// negative, unsigned codes start at 0 and use all 2^b - 1 steps. A range without a width has scale
/// 1.
ActivationGrid activation_grid(Interval range, const ActivationCodes& codes);

}  // namespace compress
