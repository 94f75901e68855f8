// Sums of outer products of two panels: the inner loop of everything here that is cubic.
//
// A panel is a matrix [count, width] with contiguous rows. Its sums are added in the order of its
// rows, by the same operations on every processor, so results depend neither on the number of
// threads nor on the instruction set.

#pragma once

#include <cstdint>

namespace compress {

/// Rows of a weight that the column solver works on side by side.
inline constexpr int64_t kFloatLanes = 32;
/// The same of matrices in double precision.
inline constexpr int64_t kDoubleLanes = 16;
/// Columns of the left panel that one call takes.
inline constexpr int64_t kPanelColumns = 4;

/// sums[i][lane] -= sum over k < count of left[k * stride + i] * right[k * lanes + lane], for i <
/// kPanelColumns; `sums` and `right` have contiguous rows of kFloatLanes or kDoubleLanes.
void subtract_products(const float* left, int64_t stride, const float* right, int64_t count,
                       float* sums);
void subtract_products(const double* left, int64_t stride, const double* right, int64_t count,
                       double* sums);

}  // namespace compress
