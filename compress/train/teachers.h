// All teachers of a training run.

#pragma once

#include "compress/pass_context.h"
#include "compress/train/environment.h"
#include "compress/train/teacher.h"
#include "compress/train/train_options.h"

#include <map>
#include <string>

namespace compress {

/// The teachers that the losses of `options` name, loaded and ready. `original` is the context's
/// original model; without one, `model` as it is at this moment (its tensors are shared, so train
/// on others).
class Teachers {
 public:
  /// Throws Error(kInvalidArgument) for a teacher that is not there, lacks a tap or does not fit
  /// the data.
  Teachers(const TrainOptions& options, const TrainingEnvironment& environment,
           const PassContext& context, const Model& model, const Dataset& data);

  /// What they compute for a batch of the epoch.
  std::map<std::string, Activations> run(const Batch& batch, int64_t epoch);

 private:
  std::map<std::string, Teacher> teachers_;
};

}  // namespace compress
