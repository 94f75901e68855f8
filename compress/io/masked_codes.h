// A mask over a quantized weight becomes codes of zero, for formats that have no masks.

#pragma once

#include "compress/encoding.h"

#include <ATen/core/Tensor.h>

namespace compress {

/// The same codes, those that `mask` (bool, the weight's sizes) masks set to zero.
QuantizedTensor with_mask(const QuantizedTensor& quantized, const at::Tensor& mask);

}  // namespace compress
