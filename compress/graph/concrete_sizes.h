// Sizes of all values as numbers, for one choice of the symbolic ones.

#pragma once

#include "compress/model.h"

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace compress {

/// Sizes of every tensor value with `batch` in the place of the symbol that stands in front of the
/// first input and the example's size (at least 2) for all others. They come from the types; where
/// those do not say, the model runs once on `example_inputs`. Throws what that run throws.
std::unordered_map<const Value*, std::vector<int64_t>> concrete_sizes(const Model& model,
                                                                      int64_t batch = 2);

}  // namespace compress
