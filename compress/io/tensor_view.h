// Tensors over a storage whose layout a file claims: every claim is checked before it is believed.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <cstdint>
#include <string>
#include <vector>

namespace compress {

/// How a tensor lies in its storage; strides and offset count elements.
struct TensorView {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t storage_offset = 0;
};

/// The strides of a contiguous tensor. Throws `kBadFile` (at `where`) for negative or absurd sizes.
std::vector<int64_t> contiguous_strides(at::IntArrayRef sizes, const std::string& where);

/// The bytes of storage that `view` reaches, its offset included; 0 for a tensor without elements.
/// Throws `kBadFile` (at `where`) for negative sizes, strides or offset, and on overflow.
uint64_t required_bytes(const TensorView& view, const std::string& where);

/// A tensor over `storage`, no copy. Throws `kBadFile` (at `where`) if it would reach outside, or
/// if repeated elements (stride 0, overlaps) pretend to be far more data than the storage holds.
at::Tensor view_storage(const at::Storage& storage, const TensorView& view,
                        const std::string& where);

/// True if both are the same elements: dtype, storage, offset, sizes and strides. Tensors without
/// elements are never the same.
bool same_elements(const at::Tensor& a, const at::Tensor& b);

/// For each tensor the position of the first one with the same elements (its own if there is none).
std::vector<size_t> first_of_ties(const std::vector<at::Tensor>& tensors);

}  // namespace compress
