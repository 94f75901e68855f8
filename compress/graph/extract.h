// A part of a model as a model of its own.

#pragma once

#include "compress/model.h"

#include <vector>

namespace compress {

/// The part of `model` that computes `outputs` from `inputs`. It shares the tensors; its values
/// have the names that they have in `model`, its inputs are `inputs` in their order (scalars
/// included), its outputs `outputs`. New contents of buffers are not part of it. An output may be
/// an input, too. Throws Error(kInvalidArgument) if an output depends on an input of `model` that
/// `inputs` does not cover.
Model extract(const Model& model, const std::vector<const Value*>& inputs,
              const std::vector<const Value*>& outputs);

}  // namespace compress
