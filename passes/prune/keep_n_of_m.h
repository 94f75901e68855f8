// N:M sparsity: of every m neighbours, the n of largest magnitude.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace compress {

/// A bool mask of `tensor`'s sizes that keeps, in every run of `m` consecutive indices of dimension
/// `dim` (all other indices fixed), the `n` elements of largest magnitude; of equal ones those that
/// come first. A shorter run at the end keeps min(n, its length), so that padding with zeros up to
/// m gives n of m again. NaN counts as largest. Floating point of up to 32 bits; 0 < n <= m.
at::Tensor keep_n_of_m(const at::Tensor& tensor, int64_t n, int64_t m, int64_t dim);
/// The same by stable sorting of each run: the oracle.
at::Tensor keep_n_of_m_reference(const at::Tensor& tensor, int64_t n, int64_t m, int64_t dim);

}  // namespace compress
