// Pairs of layers between which a channel can be scaled and scaled back.

#pragma once

#include "compress/model.h"
#include "compress/weight.h"

#include <cstdint>
#include <string>
#include <vector>

namespace compress {

/// A convolution or linear layer, with the batch norm right behind it where there is one.
struct PairLayer {
  Weight* weight = nullptr;
  Node* node = nullptr;
  Node* norm = nullptr;  ///< in eval mode, with a weight and a bias of its own
};

/// Two layers, the outputs of the first read by the second alone, with nothing between them but
/// operators that commute with scaling a channel by a positive number: ReLU, pooling, dropout that
/// does nothing, the mean over positions, flattening.
struct LayerPair {
  PairLayer first, second;
  int64_t channels = 0;  ///< between them
  bool has_relu = false;
};

/// All pairs among those weights, in the order of the graph. `obstacles` receives a line for each
/// layer that leads to another and makes no pair because of what lies between.
std::vector<LayerPair> layer_pairs(Model& model, std::vector<Weight>& weights,
                                   std::vector<std::string>* obstacles = nullptr);

}  // namespace compress
