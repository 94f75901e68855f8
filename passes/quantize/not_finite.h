// What quantizers say of a weight that they cannot quantize.

#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace compress {

/// Throws Error(kRunFailed) at `name` with the numbers of NaN and infinite elements.
[[noreturn]] void refuse_not_finite(const at::Tensor& weight, const std::string& name);

}  // namespace compress
