// Small kernels of our own, for images in channels-last order.

#pragma once

#include "compress/engine/program.h"

namespace compress::engine {

/// The mean over all pixels: [n, c, h, w] of float, bfloat16 or codes -> [n, c] of float or
/// bfloat16.
void global_average(const Slot& from, const void* source, const Slot& to, void* target);

/// `crop` of images of any dtype; what lies outside of them is zero (the grid's code for it).
void crop(const Crop& crop, const Slot& from, const void* source, const Slot& to, void* target);

}  // namespace compress::engine
