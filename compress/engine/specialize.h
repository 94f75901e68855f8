// A model at fixed input sizes, stripped of what inference does not need.

#pragma once

#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <vector>

namespace compress::engine {

/// A copy of `model` (tensors shared) in inference mode with dtype and sizes of every value as a
/// run on `inputs` gives them; scalars computed from sizes are constants; dropout, copies and
/// counters of runs are gone; nothing depends on strides. Throws Error(kUnsupported) if a number is
/// computed from data, taken or returned, or if a buffer is carried from run to run; and what a run
/// throws.
Model specialize(const Model& model, const std::vector<at::Tensor>& inputs);

}  // namespace compress::engine
