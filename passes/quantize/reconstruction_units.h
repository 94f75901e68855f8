// The parts of a network that are optimised at once: layers, or blocks between which one tensor
// passes.

#pragma once

#include "compress/options.h"
#include "compress/weight.h"

#include <string>
#include <string_view>
#include <vector>

namespace compress {

enum class UnitKind {
  kLayer,  ///< a convolution or linear layer, with the activation function behind it
  kBlock,  ///< all layers between two places where a single tensor is alive: a residual block
};

/// A part of the graph from `inputs` to `output`.
struct ReconstructionUnit {
  std::string name;                  ///< the module path that its layers share, or its first weight
  std::vector<size_t> weights;       ///< indices of the weights that are to be rounded
  const Node* first = nullptr;       ///< everything that `inputs` need lies before it
  std::vector<const Value*> inputs;  ///< computed before, or inputs of the model
  const Value* output = nullptr;
};

/// The units in the order of the graph; each of `selected`, which are weights of convolutions and
/// linear layers with one use, is in exactly one.
///
/// A block ends behind a node after which a single computed tensor is alive (inputs of the model,
/// such as an attention mask, do not count) and another layer follows; activation functions and
/// batch norms belong to the block in front of them, all else without a layer (pooling, views) to
/// the one behind. A layer outside of any block, at the end of a graph with several outputs, is a
/// unit of its own.
std::vector<ReconstructionUnit> reconstruction_units(const Model& model,
                                                     const std::vector<Weight>& selected,
                                                     UnitKind kind);

/// The dimension of an output of the unit that counts channels: 1 behind a convolution, else the
/// last.
int64_t channel_dim_of(const ReconstructionUnit& unit, const std::vector<Weight>& selected);

}  // namespace compress
