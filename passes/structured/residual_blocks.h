// Residual blocks: stretches of a graph that can be left out.

#pragma once

#include "compress/model.h"

#include <string>
#include <vector>

namespace compress {

/// `sum = skip + f(skip)`: without the block, `skip` takes the place of `sum`.
struct ResidualBlock {
  Node* sum = nullptr;    ///< the addition
  Value* skip = nullptr;  ///< its operand that the other one is computed from
  std::string name;       ///< the module of the other operand, or the sum's output
};

/// All of them, in the order of the graph. Where the skip connection computes something (a strided
/// block, a change of width) nothing can be left out.
std::vector<ResidualBlock> residual_blocks(Model& model);

/// Leaves a block out, and drops what nothing uses any more.
void skip_block(Model& model, const ResidualBlock& block);

}  // namespace compress
