// Types of all values of a graph, found by running it.

#pragma once

#include "compress/graph/graph.h"

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

namespace compress {

class Model;

/// Zero tensors (ones for integers that index nothing cannot be told apart, so zeros too) of the
/// graph's input types, with `batch` in the place of every symbol that stands in the first
/// dimension of the first input, and the example size of all others.
std::vector<at::Tensor> example_inputs(const Model& model, int64_t batch = 2);

/// The inputs' symbols but the batch, each with its example size, in the order of the inputs. MACs
/// and latencies are those of these sizes.
std::vector<Dim> free_sizes(const Model& model);
/// The same for people: "sequence 8", or empty.
std::string free_sizes_text(const Model& model);
/// Changes such a size, to 2 at least, in all inputs and infers all types anew. Throws
/// Error(kInvalidArgument) for less or if the inputs have no such symbol, or what a run at this
/// size throws; the model is then as it was.
void set_free_size(Model& model, std::string_view symbol, int64_t size);

/// Runs the model on `inputs` without gradients and notes dtype and sizes of every value. A
/// dimension is symbolic if its size moves with the inputs' symbols, which a second run at another
/// size of each symbol finds out. Buffers keep their contents. Throws what the run throws.
void propagate_shapes(Model& model, const std::vector<at::Tensor>& inputs);
/// The same on `example_inputs(model)`.
void propagate_shapes(Model& model);

}  // namespace compress
