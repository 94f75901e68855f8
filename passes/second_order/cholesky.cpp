// Left-looking, block of rows after block of rows: what the blocks before contribute is one
// product of panels; then the diagonal block is factorised, and the panels beside it follow from
// it.

#include "passes/second_order/cholesky.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>

namespace compress {
namespace {

constexpr int64_t kPanelDepth = 128;  // rows of a panel that stay in the first cache meanwhile

}  // namespace

CholeskyFactor::CholeskyFactor(int64_t size)
    : size_(size), padded_((size + kBlock - 1) / kBlock * kBlock) {
  const int64_t panels = padded_ / kDoubleLanes;
  elements_.resize(panels * (panels + 1) / 2 * kDoubleLanes * kDoubleLanes);
  for (int64_t i = 0; i < padded_; ++i) at(i, i) = 1;
}

// Subtracts from the rows first .. end of a panel what the rows before `first` contribute.
void CholeskyFactor::subtract_before(int64_t index, int64_t first, int64_t end) {
  double* target = panel(index);
  for (int64_t k = 0; k < first; k += kPanelDepth) {
    const int64_t count = std::min(kPanelDepth, first - k);
    for (int64_t row = first; row < end; row += kPanelColumns) {
      const double* left = panel(row / kDoubleLanes) + k * kDoubleLanes + row % kDoubleLanes;
      subtract_products(left, kDoubleLanes, target + k * kDoubleLanes, count,
                        target + row * kDoubleLanes);
    }
  }
}

// Subtracts from one row of a panel what the rows from `first` to it contribute.
void CholeskyFactor::eliminate(int64_t index, int64_t first, int64_t row) {
  double* rows = panel(index);
  double* target = rows + row * kDoubleLanes;
  for (int64_t k = first; k < row; ++k) {
    const double factor = at(k, row);
    const double* source = rows + k * kDoubleLanes;
    for (int64_t lane = 0; lane < kDoubleLanes; ++lane) target[lane] -= factor * source[lane];
  }
}

bool CholeskyFactor::factor_diagonal(int64_t first) {
  const double tolerance = std::ldexp(static_cast<double>(size_), -52);
  const int64_t last_panel = (first + kBlock) / kDoubleLanes;
  for (int64_t row = first; row < first + kBlock; ++row) {
    for (int64_t index = row / kDoubleLanes; index < last_panel; ++index) {
      eliminate(index, first, row);
    }
    const double pivot = at(row, row);
    if (!(pivot > tolerance * diagonal_[row])) return false;  // NaN included
    const double root = std::sqrt(pivot);
    for (int64_t index = row / kDoubleLanes; index < last_panel; ++index) {
      double* target = panel(index) + row * kDoubleLanes;
      for (int64_t lane = 0; lane < kDoubleLanes; ++lane) target[lane] /= root;
    }
  }
  return true;
}

bool CholeskyFactor::factor() {
  diagonal_.resize(padded_);
  for (int64_t i = 0; i < padded_; ++i) diagonal_[i] = at(i, i);
  const int64_t panels = padded_ / kDoubleLanes;
  for (int64_t first = 0; first < padded_; first += kBlock) {
    const int64_t beside = (first + kBlock) / kDoubleLanes;
    for (int64_t index = first / kDoubleLanes; index < beside; ++index) {
      subtract_before(index, first, (index + 1) * kDoubleLanes);
    }
    if (!factor_diagonal(first)) return false;
    const int64_t work = (first + kBlock) * kBlock * kDoubleLanes;  // operations a panel
    const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 20) / work);
    at::parallel_for(beside, panels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        subtract_before(index, first, first + kBlock);
        for (int64_t row = first; row < first + kBlock; ++row) {
          eliminate(index, first, row);
          double* target = panel(index) + row * kDoubleLanes;
          const double root = at(row, row);
          for (int64_t lane = 0; lane < kDoubleLanes; ++lane) target[lane] /= root;
        }
      }
    });
  }
  return true;
}

void CholeskyFactor::solve(double* b) const {
  for (int64_t i = 0; i < size_; ++i) {  // R^T y = b
    double sum = b[i];
    for (int64_t k = 0; k < i; ++k) sum -= at(k, i) * b[k];
    b[i] = sum / at(i, i);
  }
  for (int64_t i = size_ - 1; i >= 0; --i) {  // R x = y
    b[i] /= at(i, i);
    for (int64_t k = 0; k < i; ++k) b[k] -= at(k, i) * b[i];
  }
}

}  // namespace compress
