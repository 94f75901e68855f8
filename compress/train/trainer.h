// Trains a model: the loop around forward, losses, optimizer and hooks.

#pragma once

#include "compress/pass_context.h"
#include "compress/recipe.h"
#include "compress/train/environment.h"
#include "compress/train/train_options.h"

#include <map>
#include <string>
#include <vector>

namespace compress {

/// What came of a training run; figures of the last epoch.
struct TrainResult {
  int64_t epochs = 0, steps = 0;
  double loss = 0;                           ///< mean over the samples of the last epoch
  std::map<std::string, double> validation;  ///< by name of the metric; empty: no validation
  double samples_per_second = 0;             ///< in this process, without validation
};

/// Trains `model` in place, with the training passes of `during` at work, and leaves it in eval
/// mode on the device it came from, its tensors contiguous. Progress, counts and messages go to
/// `context`, whose seed decides the order of the samples, their augmentation and every random
/// draw. Same model, options, data, seed and number of threads: the same bytes, whether or not the
/// run was killed and resumed.
///
/// Throws Error(kInvalidArgument) for what does not fit (data, labels, teachers, taps, groups, a
/// checkpoint of another run or number of threads), Error(kRunFailed) naming step and layer when
/// the loss is no longer finite; the last checkpoint then stays.
TrainResult train(Model& model, const TrainOptions& options, const std::vector<Step>& during,
                  const TrainingEnvironment& environment, PassContext& context);

/// Everything about a train step that can be known to be wrong before any work: data entries that
/// are not there, groups and selectors that match nothing, passes that do not work during training,
/// teachers that nobody names.
void check_training(const Model& model, const TrainOptions& options,
                    const std::vector<Step>& during, const TrainingEnvironment& environment,
                    Problems& problems);

}  // namespace compress
