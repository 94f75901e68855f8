// Digests of tensors and models: xxh128, for telling contents apart, not for security.

#pragma once

#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace compress {

/// 32 hexadecimal digits over dtype, sizes and the elements' bytes in contiguous order; strides and
/// device do not matter. Throws Error(kUnsupported) for a sparse tensor.
std::string tensor_digest(const at::Tensor& tensor);

/// The same, and `look` sees the elements' bytes piece by piece (whole elements, in order) while
/// they are in the processor's cache: for readers that want more of a tensor they read once.
std::string tensor_digest(const at::Tensor& tensor,
                          const std::function<void(std::span<const std::byte>)>& look);

/// The digest of a named tensor: the one that was read from text while its contents are missing.
std::string tensor_digest(const NamedTensor& tensor);

/// A digest of the graph (types of results apart, as they follow from the rest) and all tensors.
/// Equal digests before and after a pass mean that it changed nothing.
std::string model_digest(const Model& model);

}  // namespace compress
