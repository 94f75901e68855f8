// From a graph to a program.

#pragma once

#include "compress/engine/program.h"

namespace compress::engine {

/// The program of a specialized model (specialize.h). With `eight_bit`, values behind
/// `aten::fake_quantize_per_tensor_affine` of eight bits or fewer are kept as codes, and layers
/// compute on them; everything else is of `float_type`, float or bfloat16.
Program lower(const Model& model, bool eight_bit, c10::ScalarType float_type);

}  // namespace compress::engine
