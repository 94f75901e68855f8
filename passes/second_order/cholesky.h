// The Cholesky factor of a symmetric matrix, in double precision, the same for any number of
// threads.

#pragma once

#include "passes/second_order/panel_product.h"

#include <cstdint>
#include <vector>

namespace compress {

/// The upper triangle of a symmetric matrix G, which `factor` turns into the upper triangular R of
/// G = R^T R. Stored as panels of kDoubleLanes columns, each with the rows from 0 to its diagonal,
/// so that a panel is contiguous; padded with the identity to whole blocks.
class CholeskyFactor {
 public:
  /// The identity of `size` rows.
  explicit CholeskyFactor(int64_t size);

  int64_t size() const { return size_; }
  /// An element of the upper triangle: row <= column.
  double& at(int64_t row, int64_t column) {
    return panel(column / kDoubleLanes)[row * kDoubleLanes + column % kDoubleLanes];
  }
  double at(int64_t row, int64_t column) const {
    return const_cast<CholeskyFactor*>(this)->at(row, column);
  }

  /// Factorises in place, on several threads. False if G is not positive definite to rounding: a
  /// pivot that is not larger than size * 2^-52 of its diagonal element; the content is lost then.
  bool factor();
  /// Solves G x = b in place, G = R^T R being factorised; `b` has `size()` elements.
  void solve(double* b) const;

 private:
  static constexpr int64_t kBlock = 64;  // rows that are eliminated together

  double* panel(int64_t index) {
    return elements_.data() + index * (index + 1) / 2 * kDoubleLanes * kDoubleLanes;
  }
  void subtract_before(int64_t index, int64_t first, int64_t end);
  void eliminate(int64_t index, int64_t first, int64_t row);
  bool factor_diagonal(int64_t first);

  int64_t size_, padded_;
  std::vector<double> elements_, diagonal_;
};

}  // namespace compress
