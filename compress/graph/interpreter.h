// Runs a graph through LibTorch's dispatcher.

#pragma once

#include "compress/graph/graph.h"

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace c10 {
struct IValue;
}

namespace compress {

class Model;

/// A compiled form of one version of a model's graph.
///
/// Every node keeps its resolved operator and its arguments with the constants filled in; a value
/// is freed after its last use. Nodes that depend on nothing but named tensors (the decoding of a
/// compressed weight) are computed once and kept while gradients are off and their tensors do not
/// change. Not safe for use by two threads at once.
class Interpreter {
 public:
  explicit Interpreter(const Model& model);
  ~Interpreter();

  /// The graph's version that was compiled.
  uint64_t version() const;

  /// Runs the graph on `inputs` (graph order; scalar inputs as 0-dim tensors) and returns its
  /// tensor outputs in order. Throws Error(kInvalidArgument) for a wrong number of inputs, and
  /// Error(kRunFailed) naming the node, its module path and the shapes when an operator fails.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs);

  /// Called with every value as it is computed, inputs included.
  using Observer = std::function<void(const Value&, const c10::IValue&)>;
  /// Without `keep_constants` decoded weights go as soon as they have been read: for a single run.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, const Observer& observer,
                              bool keep_constants = true);

 private:
  struct Plan;
  std::unique_ptr<Plan> plan_;
};

/// What a value of the graph holds that depends on named tensors only, such as the effective weight
/// of a layer. Runs just the nodes that it needs. Throws Error(kInvalidArgument) if it depends on
/// an input of the graph.
at::Tensor evaluate(const Model& model, const Value* value);

}  // namespace compress
