// M = J R^T J, where J reverses the order and R^T R = J H J.

#include "passes/second_order/column_factor.h"

#include "compress/error.h"
#include "passes/second_order/cholesky.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace compress {

std::vector<int64_t> natural_order(int64_t columns) {
  std::vector<int64_t> order(columns);
  std::iota(order.begin(), order.end(), int64_t{0});
  return order;
}

std::vector<int64_t> falling_diagonal_order(const at::Tensor& gram) {
  std::vector<int64_t> order = natural_order(gram.size(0));
  const at::Tensor diagonal = gram.diagonal().contiguous();
  const double* value = diagonal.const_data_ptr<double>();
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return value[a] > value[b]; });
  return order;
}

ColumnFactor::ColumnFactor(const at::Tensor& gram, std::vector<int64_t> order, double damping)
    : order_(std::move(order)), damping_(gram, damping) {
  COMPRESS_CHECK(gram.scalar_type() == at::kDouble && gram.dim() == 2 && gram.is_contiguous() &&
                     gram.size(0) == gram.size(1) && gram.size(0) == columns(),
                 "a Gram matrix is double and square");
  const double* elements = gram.const_data_ptr<double>();
  const int64_t stride = columns() + 1;
  for (int64_t i = 0; i < columns(); ++i) {
    if (elements[i * stride] == 0) dead_.push_back(i);
  }
  while (!factor(gram)) damping_.raise();
}

bool ColumnFactor::factor(const at::Tensor& gram) {
  const int64_t size = columns();
  const double* elements = gram.const_data_ptr<double>();
  CholeskyFactor reversed(size);
  at::parallel_for(0, size, std::max<int64_t>(1, (1 << 16) / size),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t column = begin; column < end; ++column) {
                       const double* row = elements + order_[size - 1 - column] * size;
                       for (int64_t i = 0; i <= column; ++i)
                         reversed.at(i, column) = row[order_[size - 1 - i]];
                       double& diagonal = reversed.at(column, column);
                       diagonal = damping_(diagonal);
                     }
                   });
  if (!reversed.factor()) return false;

  pivots_.resize(size);
  for (int64_t i = 0; i < size; ++i) pivots_[i] = reversed.at(size - 1 - i, size - 1 - i);
  const int64_t count = (size + kPanelColumns - 1) / kPanelColumns;
  panels_.assign(panel(count) - panel(0), 0);
  at::parallel_for(0, count, 8, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      float* out = panels_.data() + (panel(index) - panel(0));
      const int64_t first = index * kPanelColumns, last = std::min(first + kPanelColumns, size);
      for (int64_t j = 0; j < last; ++j) {
        for (int64_t i = std::max(first, j); i < last; ++i) {
          const double ratio = reversed.at(size - 1 - i, size - 1 - j) / pivots_[i];
          out[j * kPanelColumns + i - first] = static_cast<float>(ratio);
        }
      }
    }
  });
  return true;
}

}  // namespace compress
