// The step of a recipe that trains.

#pragma once

#include "compress/pass.h"

#include <memory>

namespace compress {

/// The pass `train`, whose options are TrainOptions; see compress/train/trainer.h for what it does.
std::unique_ptr<Pass> make_train_step();

}  // namespace compress
