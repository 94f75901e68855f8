// A model run over calibration data layer by layer: all batches up to one layer, then on to the
// next. What happened to the layers before is seen by those behind (sequential calibration).

#pragma once

#include "compress/calibrate/statistics.h"
#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace compress {

/// Stands in front of a node of a model and holds, for every batch, the values computed before it
/// that it or a later node uses. Each node runs once over the whole walk, in eval mode or not as
/// the graph says, without gradients. Memory: the live values of all samples.
///
///   Walk walk(model, *context.calibration);
///   for (Weight& weight : selected) {          // in the order of the graph
///     walk.advance(weight.layer());
///     for (const at::Tensor& x : walk.at(layer_input(*weight.layer()))) gram.add(x);
///     weight.encode(...);                      // the walk goes on with the new weight
///   }
///
/// Between two calls the part of the graph at and behind the node may be edited, the weights of
/// the next layers and what lies between them; the part before must stay as it is.
class Walk {
 public:
  /// Stands in front of the first node. Keeps a reference to `model`. Throws
  /// Error(kInvalidArgument) for a source without a batch.
  Walk(const Model& model, const BatchSource& batches);

  /// Runs everything in front of `node`, which must not lie before where the walk stands. Throws
  /// Error(kRunFailed) when an operator fails or a value that `node` uses is not finite.
  void advance(const Node* node);
  /// Runs everything that is left.
  void finish();

  /// The content of a live value for each batch: an input, or computed before where the walk
  /// stands and used later or an output of the graph. Throws std::logic_error for others.
  const std::vector<at::Tensor>& at(const Value* value) const;
  /// Puts other content in the place of a live value's, as if its producer had computed it.
  void set(const Value* value, std::vector<at::Tensor> content);

  int64_t samples() const { return samples_; }
  int64_t batches() const { return batches_; }

 private:
  void run_to(const Node* node);

  const Model& model_;
  std::unordered_map<std::string, std::vector<at::Tensor>> live_;  // by the value's name
  int64_t samples_ = 0, batches_ = 0;
};

}  // namespace compress
