// Networks for tests of the engine: built call by call, and put on grids by minimum and maximum.

#pragma once

#include "compress/graph/builder.h"
#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace compress::testing {

/// What `build` makes of one input image batch `x : f32[batch, sizes...]`, with fresh weights.
Model network(const std::vector<int64_t>& sizes,
              const std::function<Value*(GraphBuilder&, Value*)>& build, uint64_t seed = 1);

/// Batch norms with statistics as training leaves them: not 0 and 1.
void unsettle_batch_norms(Model& model, uint64_t seed = 2);

/// Folds batch norms, rounds weights to eight bits a channel, and puts a quantizer of eight bits on
/// what layers read and on both operands and the result of each sum, ranges from a run on `x`.
void quantize(Model& model, const at::Tensor& x);

}  // namespace compress::testing
