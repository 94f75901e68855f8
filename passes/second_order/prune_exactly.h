// Optimal Brain Surgeon on each row of a layer's weight.

#pragma once

#include "passes/second_order/prune_columns.h"

#include <ATen/core/Tensor.h>

namespace compress {

/// ExactOBS (Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022, algorithms 1 and 2):
/// from each row the weight goes whose removal, all others making up for it, costs least, again and
/// again; of all rows' removals the cheapest are done, or in each run of m those that leave n.
/// What is left is the least-squares optimum for its zeros. Arguments and result as those of
/// `prune_columns`; `block` has no meaning here. O(columns^3) a row.
PrunedColumns prune_exactly(const at::Tensor& weight, const at::Tensor& gram,
                            const PruneColumns& how, const at::Tensor& keep = {});

}  // namespace compress
