// Memory for the masks of large weights.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <sys/mman.h>

#include <cstdint>

namespace compress {

/// A bool tensor whose elements are yet to be written. A large one asks for large pages, since
/// taking memory from the system page by page costs as much as marking it.
inline at::Tensor empty_mask(at::IntArrayRef sizes) {
  at::Tensor mask = at::empty(sizes, at::kBool);
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  const auto begin = reinterpret_cast<uintptr_t>(mask.mutable_data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + mask.nbytes()) / kPage * kPage;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return mask;
}

}  // namespace compress
