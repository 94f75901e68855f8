// Models for tests, from their text.

#pragma once

#include "compress/model.h"

#include <cstdint>
#include <string_view>

namespace compress::testing {

/// `parse_model`, with every tensor that the text gives no elements for (`parameter w : f32[8,4]`)
/// filled: floats from a normal distribution with the seed, integers from 0 to 9, bools at random.
Model parse_filled(std::string_view text, uint64_t seed = 1);

}  // namespace compress::testing
