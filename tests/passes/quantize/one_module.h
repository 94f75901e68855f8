// A module with two layers, which its path does not tell apart.

#pragma once

#include "tests/support/models.h"

namespace compress::testing {

inline Model two_layers_of_one_module() {
  return parse_filled(R"(
input x : f32[batch,8]
parameter m.first : f32[8,8]
parameter m.second : f32[8,8]
a = aten::linear(x, m.first) : f32[batch,8] @ m
r = aten::relu(a) : f32[batch,8]
b = aten::linear(r, m.second) : f32[batch,8] @ m
return y = b
)");
}

}  // namespace compress::testing
