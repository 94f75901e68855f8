// Which weights are of largest magnitude: exactly k of them, over one tensor or over many.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace compress {

/// How many of `elements` weights stay at `sparsity`: max(round(elements * (1 - sparsity)), 1),
/// half to even, as in TensorFlow's model optimization toolkit. 0 of 0.
int64_t kept_count(int64_t elements, double sparsity);

/// For each tensor a bool mask of its sizes; exactly `count` elements of all of them together are
/// true, those of largest magnitude. Among equal magnitudes those that come first stay (tensors in
/// order, row-major in each). Floating point of any width; the tensors are not copied or joined
/// unless they are not contiguous or 16-bit floats among others. Throws Error(kRunFailed) if an
/// element is NaN, which says the tensor by `names`, or by its index.
std::vector<at::Tensor> keep_largest(const std::vector<at::Tensor>& tensors, int64_t count,
                                     const std::vector<std::string>& names = {});
/// The same by a stable sort of everything: the oracle, and the way for 64-bit floats.
std::vector<at::Tensor> keep_largest_reference(const std::vector<at::Tensor>& tensors,
                                               int64_t count);

}  // namespace compress
