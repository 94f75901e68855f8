// Pruning of one layer's weight, column after column, with what is known of its inputs.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace compress {

struct PruneColumns {
  int64_t zeros = 0;      ///< of the weight, if `m` is 0; each block gets its share
  int64_t n = 0, m = 0;   ///< if m > 0: of every m input channels, n stay
  int64_t positions = 1;  ///< columns of an input channel: the elements of a kernel
  int64_t block = 128;    ///< columns whose zeros are chosen together, if `m` is 0
  double damping = 0.01;  ///< of the Gram matrix, see ColumnFactor
};

struct PrunedColumns {
  at::Tensor weight;   ///< float [rows, columns]; zero where `keep` is false
  at::Tensor keep;     ///< bool [rows, columns]
  double error = 0;    ///< tr(D H D^T), D the change of the weight, H damped
  double damping = 0;  ///< the largest that was used
};

/// SparseGPT (Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in
/// One-Shot, ICML 2023, algorithm 1) of `weight`, float [rows, columns], whose rows are divided
/// evenly among the `gram.size(0)` groups of a convolution; `gram` is double [groups, columns,
/// columns]. A block's zeros are those that cost least when its turn comes; the other weights and
/// the columns behind make up for them. Where `keep` (bool, sizes of `weight`; may be undefined) is
/// false, the weight is zero and counts as one of the zeros. Exactly `zeros` are made, unless
/// `keep` has more. Runs of m are those of keep_n_of_m (passes/prune/keep_n_of_m.h) along the input
/// channels.
PrunedColumns prune_columns(const at::Tensor& weight, const at::Tensor& gram,
                            const PruneColumns& how, const at::Tensor& keep = {});

}  // namespace compress
