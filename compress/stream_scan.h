// What a run over a file reads and writes of each element, in as few passes over memory as it
// takes.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace compress {

/// What one pass over a tensor tells.
struct TensorScan {
  std::string digest;             ///< as `tensor_digest`
  int64_t nonzeros = 0;           ///< elements that are not zero
  std::optional<bool> is_finite;  ///< empty for types that are not looked at
};

/// Reads a tensor once, on the calling thread; 16-, 32- and 64-bit floats are looked at.
TensorScan scan_tensor(const at::Tensor& tensor);

/// Whether `mask_elements` takes elements of this type.
bool can_mask(at::ScalarType dtype);

/// Writes to `out` the `size` elements behind `elements` where `keep` is true, and zeros for the
/// others; -0 is made plain. Returns how many are not zero. As Weight::effective, for finite
/// elements.
int64_t mask_elements(at::ScalarType dtype, const void* elements, const bool* keep, int64_t size,
                      void* out);

}  // namespace compress
