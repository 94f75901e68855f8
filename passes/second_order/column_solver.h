// Goes through the columns of a weight: each is settled, and those behind make up for its error.

#pragma once

#include "passes/second_order/column_factor.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace compress {

/// Columns that are decided together, at their optimum given those before them. Rows come in chunks
/// of kFloatLanes; lanes beyond the last row hold zeros.
struct ColumnBlock {
  int64_t first = 0, end = 0;  ///< columns, in the factor's order
  int64_t rows = 0;
  const float* values = nullptr;
  int64_t chunk_stride = 0;

  int64_t chunks() const { return (rows + kFloatLanes - 1) / kFloatLanes; }
  /// kFloatLanes rows of a column.
  const float* lanes(int64_t chunk, int64_t column) const {
    return values + chunk * chunk_stride + (column - first) * kFloatLanes;
  }
};

/// What the columns are settled to.
struct ColumnRule {
  /// Called on one thread when all columns before the block are settled; may be empty.
  std::function<void(const ColumnBlock&)> begin_block;
  /// Chooses for kFloatLanes rows from `chunk * kFloatLanes` of a column, whose optimum is
  /// `values`. Called on several threads, for different chunks; for each in the order of columns.
  std::function<void(int64_t column, int64_t chunk, const float* values, float* chosen)> settle;
};

struct SolvedColumns {
  at::Tensor weight;  ///< float [rows, columns], what was chosen, in the order of the Gram matrix
  double error = 0;   ///< tr(D H D^T), D its difference to the weight, H damped
};

/// Settles all columns of `weight`, float [rows, columns] in the order of the Gram matrix. `bounds`
/// are the first columns of the blocks and, at the end, the number of columns, in the factor's
/// order. Without `begin_block` they make no difference but to speed.
SolvedColumns solve_columns(const at::Tensor& weight, const ColumnFactor& factor,
                            const std::vector<int64_t>& bounds, const ColumnRule& rule);

/// 0, block, 2 * block, ... columns.
std::vector<int64_t> even_bounds(int64_t columns, int64_t block);

}  // namespace compress
