// What tests of training need: small networks, small data, an environment in memory.

#pragma once

#include "compress/data/dataset.h"
#include "compress/model.h"
#include "compress/train/environment.h"
#include "compress/train/trainer.h"
#include "tests/support/errors.h"

#include <filesystem>
#include <functional>
#include <string>

namespace compress::testing {

/// `x -> linear(8, 4)`, named fc.
Model linear_network();
/// Two convolutions with batch norm and a linear layer, `[batch, 3, 8, 8] -> [batch, 4]`.
Model conv_network();

/// Random inputs of the given sizes with labels that a linear function of them, or of the colours
/// of images, decides.
DatasetPtr toy_data(std::vector<int64_t> sizes, int64_t samples, int64_t classes = 4);

/// An environment in which every data entry is `data`.
TrainingEnvironment environment_of(const DatasetPtr& data,
                                   const std::filesystem::path& checkpoints = {});

/// Reads the JSON of train options; throws what is wrong with it.
TrainOptions train_options(const std::string& json);

/// Trains with passes given as a one-line recipe; empty: none.
TrainResult train_model(Model& model, const TrainOptions& options,
                        const TrainingEnvironment& environment, const std::string& during = {},
                        uint64_t seed = 1);

}  // namespace compress::testing
