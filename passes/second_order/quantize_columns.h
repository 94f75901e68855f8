// Quantization of one layer's weight, column after column, with what is known of its inputs.

#pragma once

#include "compress/options.h"
#include "passes/second_order/lane_grid.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace compress {

struct QuantizeColumns {
  GridRule grid;
  Granularity granularity = Granularity::channel();
  double damping = 0.01;  ///< of the Gram matrix, see ColumnFactor
  bool act_order = true;  ///< columns by falling diagonal of the Gram matrix
  /// Whether a group's range is that of its weights as they came. If not, it is found when the
  /// group's turn comes, and fits what was added to make up for errors before it; groups must then
  /// come in their order, so this goes without `act_order`.
  bool static_groups = true;
};

/// Codes of a weight as the matrix [rows, columns], as QuantizedTensor wants them.
struct ColumnCodes {
  at::Tensor codes;    ///< uint8 [rows, columns]
  at::Tensor scale;    ///< float [rows or 1, groups]
  at::Tensor zero;     ///< uint8, sizes of `scale`
  at::Tensor weight;   ///< float [rows, columns], decoded
  double error = 0;    ///< tr(D H D^T), D the change of the weight, H damped
  double damping = 0;  ///< the largest that was used
  int64_t dead = 0;    ///< columns whose inputs are always zero; their codes stand for 0
};

/// GPTQ (Frantar et al., ICLR 2023, algorithm 1) of `weight`, float [rows, columns], whose rows are
/// divided evenly among the `gram.size(0)` groups of a convolution; `gram` is double [groups,
/// columns, columns]. Where `keep` (bool, sizes of `weight`; may be undefined) is false, the code
/// is that of 0.
ColumnCodes quantize_columns(const at::Tensor& weight, const at::Tensor& gram,
                             const QuantizeColumns& how, const at::Tensor& keep = {});

}  // namespace compress
