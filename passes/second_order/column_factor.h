// What is known of a layer's inputs, made ready for going through the columns of its weight.
//
// The error of a layer with inputs X when its weight changes by D is tr(D H D^T), H the Gram matrix
// of its inputs. With H = M M^T, M upper triangular, that is the sum of squares of D M. So column
// after column, the optimum of column i, the ones before it being settled with changes d_j, is
//   w_i + sum over j < i of (w_j - chosen_j) M_ji / M_ii,
// and a choice c costs M_ii^2 (optimum - c)^2. That is the recursion of Optimal Brain Surgeon with
// a fixed order (Frantar et al., GPTQ, ICLR 2023, equations 2 and 3 and section 3.3, which writes
// it with the upper Cholesky factor of the inverse of H, U = M^-1) without the inverse; Chen et
// al., "The Geometry of LLM Quantization: GPTQ as Babai's Nearest Plane Algorithm", 2025, show that
// the two agree.

#pragma once

#include "passes/second_order/damping.h"
#include "passes/second_order/panel_product.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace compress {

/// The factor M of a Gram matrix whose columns are taken in some order.
class ColumnFactor {
 public:
  int64_t columns() const { return static_cast<int64_t>(order_.size()); }
  /// The column of the Gram matrix, and of the weight, that comes i-th.
  const std::vector<int64_t>& order() const { return order_; }
  /// M_ii: the cost of a unit of error in the i-th column is its square.
  double pivot(int64_t i) const { return pivots_[i]; }
  /// M_ji / M_ii of the kPanelColumns columns i from kPanelColumns * index, for all j up to the
  /// last of them: [j][kPanelColumns].
  const float* panel(int64_t index) const {
    return panels_.data() + kPanelColumns * kPanelColumns / 2 * index * (index + 1);
  }
  float ratio(int64_t j, int64_t i) const {
    return panel(i / kPanelColumns)[j * kPanelColumns + i % kPanelColumns];
  }
  /// The share of the mean diagonal that was added to the diagonal.
  double damping() const { return damping_.share(); }
  /// Columns whose inputs are always zero, in the order of the Gram matrix.
  const std::vector<int64_t>& dead() const { return dead_; }

  /// Factorises `gram` (double [columns, columns], symmetric) with its columns in `order`, a
  /// permutation. A column without inputs gets the mean of the others' diagonal. `damping` times
  /// the mean diagonal is added to the diagonal; where the matrix still is singular, ten times as
  /// much (at least 1e-6), and so on. Throws Error(kRunFailed) if an element is not finite.
  ColumnFactor(const at::Tensor& gram, std::vector<int64_t> order, double damping);

 private:
  bool factor(const at::Tensor& gram);

  std::vector<int64_t> order_, dead_;
  std::vector<double> pivots_;
  std::vector<float> panels_;
  Damping damping_;
};

/// 0, 1, ... `columns` - 1.
std::vector<int64_t> natural_order(int64_t columns);
/// By falling diagonal of `gram`, equal ones as they come: the columns that matter most are settled
/// while the most others can still make up for them (GPTQ's `act-order`).
std::vector<int64_t> falling_diagonal_order(const at::Tensor& gram);

}  // namespace compress
