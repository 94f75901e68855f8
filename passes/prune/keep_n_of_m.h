// N:M sparsity: of every m neighbours, the n of largest magnitude.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace compress {

/// A bool mask of `tensor`'s sizes that keeps, in every run of `m` consecutive indices of dimension
/// `dim` (all other indices fixed), the `n` elements of largest magnitude; of equal ones those that
/// come first. A shorter run at the end keeps min(n, its length), so that padding with zeros up to
/// m gives n of m again. Floating point of up to 32 bits; 0 < n <= m. Throws Error(kRunFailed) at
/// `name` if an element is NaN.
at::Tensor keep_n_of_m(const at::Tensor& tensor, int64_t n, int64_t m, int64_t dim,
                       const std::string& name = {});
/// The same by stable sorting of each run: the oracle.
at::Tensor keep_n_of_m_reference(const at::Tensor& tensor, int64_t n, int64_t m, int64_t dim);

}  // namespace compress
