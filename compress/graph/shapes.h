// Types of all values of a graph, found by running it.

#pragma once

#include "compress/graph/graph.h"

#include <ATen/core/Tensor.h>

#include <vector>

namespace compress {

class Model;

/// Zero tensors (ones for integers that index nothing cannot be told apart, so zeros too) of the
/// graph's input types, with `batch` in the place of every symbol that stands in the first
/// dimension of the first input, and the example size of all others.
std::vector<at::Tensor> example_inputs(const Model& model, int64_t batch = 2);

/// Runs the model on `inputs` without gradients and notes dtype and sizes of every value. A
/// dimension is symbolic if its size moves with the inputs' symbols, which a second run at another
/// size of each symbol finds out. Buffers keep their contents. Throws what the run throws.
void propagate_shapes(Model& model, const std::vector<at::Tensor>& inputs);
/// The same on `example_inputs(model)`.
void propagate_shapes(Model& model);

}  // namespace compress
