// The cubic schedule of gradual pruning.

#pragma once

namespace compress {

/// The sparsity after a share of the pruning time, in [0, 1] (outside: that of the nearer end):
/// s = final + (initial - final) * (1 - progress)^power, Zhu & Gupta 2017, eq. 1, with power 3.
double gradual_sparsity(double initial, double final, double progress, double power = 3);

}  // namespace compress
