// Residual blocks: stretches of a graph that can be left out.

#pragma once

#include "compress/model.h"

#include <string>
#include <vector>

namespace compress {

/// `sum = skip + f(x)`, where `skip` is x or is made of it: without the block, `skip` takes the
/// place of `sum`.
struct ResidualBlock {
  Node* sum = nullptr;    ///< the addition
  Value* skip = nullptr;  ///< its operand that leads around the block
  std::string name;       ///< the module of the other operand, or the sum's output
};

/// All of them, in the order of the graph. A skip connection that changes sizes (a strided slice
/// with padding, a convolution of its own) stays; it has at most one layer, and the block more.
std::vector<ResidualBlock> residual_blocks(Model& model);

/// Leaves a block out, and drops what nothing uses any more.
void skip_block(Model& model, const ResidualBlock& block);

}  // namespace compress
