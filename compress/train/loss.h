// Losses of a training step: what a batch gives, and what a loss makes of it.

#pragma once

#include "compress/data/dataset.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// What one model computed for a batch.
struct Activations {
  std::vector<at::Tensor> outputs;  ///< the model's outputs, in order
  std::map<std::string, at::Tensor>
      taps;  ///< by the text that asked for them: a module path, a node
};

/// All that a loss may look at. Everything of the student carries gradients, nothing of a teacher
/// does.
struct LossBatch {
  const Batch& batch;  ///< inputs, labels (may be undefined), indices in the data set
  const Activations& student;
  const std::map<std::string, Activations>& teachers;  ///< by name; of the same augmented inputs
  double epoch = 0;     ///< epochs done, with a fraction for the steps of this one
  int64_t samples = 0;  ///< of the whole training set (memory banks)
};

/// What a loss wants to find in a LossBatch.
struct LossWishes {
  std::vector<std::string> student_taps;
  std::map<std::string, std::vector<std::string>> teacher_taps;  ///< a teacher's name -> taps
  std::vector<std::string> teachers;                             ///< whose outputs are needed
};

/// A term of the training loss.
class Loss {
 public:
  virtual ~Loss() = default;
  /// For logs: `cross_entropy`, `distill_logits`.
  virtual std::string name() const = 0;
  /// The factor of the term in the sum.
  virtual double weight() const = 0;
  virtual LossWishes wishes() const { return {}; }
  /// Called with the first batch before any step: the time to make adapters and memory banks of the
  /// right sizes, and to refuse what does not fit with Error(kInvalidArgument). `seed` is for their
  /// initial values.
  virtual void prepare(const LossBatch&, uint64_t seed) {}
  /// The term, a 0-dim tensor with gradients, without its weight.
  virtual at::Tensor compute(const LossBatch& batch) = 0;
  /// Adapters that are trained with the model and are not part of it. Names are unique within the
  /// loss. Valid after `prepare`.
  virtual std::map<std::string, at::Tensor> parameters() const { return {}; }
  /// State that is not a parameter (memory banks), saved in checkpoints; in-place updated tensors.
  virtual std::map<std::string, at::Tensor> buffers() const { return {}; }
};

}  // namespace compress
