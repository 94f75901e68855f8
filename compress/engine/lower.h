// From a graph to a program.

#pragma once

#include "compress/engine/program.h"

namespace compress::engine {

/// What the layers of a program may compute in.
struct Arithmetic {
  /// Values behind `aten::fake_quantize_per_tensor_affine` of eight bits or fewer are kept as
  /// codes, and layers compute on them.
  bool eight_bit = true;
  /// Everything else is of this type, float or bfloat16.
  c10::ScalarType float_type = c10::kFloat;
  /// Products of codes are added up in 32 bits. Where the processor adds pairs of them in 16 first,
  /// layers whose pairs could overflow compute in `float_type`.
  bool wide_sums = true;
};

/// The program of a specialized model (specialize.h).
Program lower(const Model& model, const Arithmetic& arithmetic);

}  // namespace compress::engine
