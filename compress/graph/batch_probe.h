// Runs a graph at twice its fixed batch and finds the numbers that have to follow. Private to
// generalize_batch.

#pragma once

#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace compress::detail {

/// A number in a list of sizes that is `factor` times the batch.
struct BatchEdit {
  size_t node = 0, argument = 0, element = 0;
  int64_t factor = 1;
};

struct BatchPlan {
  std::vector<BatchEdit> edits;
  /// Sizes of every node's outputs at twice the batch.
  std::vector<std::vector<std::vector<int64_t>>> doubled;
};

/// Thrown inside only: why a model stays at its batch size.
struct BatchImpossible {
  std::string why;
};

/// The sizes of a type as numbers; none if they are not known.
std::vector<int64_t> numbers_of(const TensorType& type);

/// Which element of a view's sizes `target` takes the batch of an input of sizes `before`, whose
/// dimension `doubled` has it as a factor. The batch keeps its place in the order of the elements.
size_t batch_element(const std::vector<int64_t>& before, size_t doubled,
                     const std::vector<int64_t>& target, int64_t batch);

/// Runs the nodes one by one on `inputs`, which are of twice the `batch`, in evaluation mode.
/// `guess`: the dimension that takes the batch in tensors made from sizes alone; none if negative.
/// `most_bytes` bounds each result. Throws BatchImpossible, or what the operators throw.
BatchPlan probe_batch(const Model& model, const std::vector<at::Tensor>& inputs, int64_t batch,
                      int guess, int64_t most_bytes);

}  // namespace compress::detail
