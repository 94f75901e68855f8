// Small kernels of our own, for images in channels-last order.

#include "compress/engine/kernels.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace compress::engine {
namespace {

template <class Element, class Sum>
void add_pixels(const Element* image, int64_t pixels, int64_t channels, Sum* sums) {
  std::fill_n(sums, channels, Sum(0));
  for (int64_t pixel = 0; pixel < pixels; ++pixel, image += channels) {
    for (int64_t c = 0; c < channels; ++c) sums[c] += static_cast<Sum>(image[c]);
  }
}

template <class Element, class Sum>
void average(const Slot& from, const void* source, const Slot& to, void* target) {
  const int64_t channels = from.sizes[1], pixels = from.sizes[2] * from.sizes[3];
  const double scale = from.grid ? from.grid->scale : 1;
  const double zero = static_cast<double>(from.grid ? from.grid->zero_point : 0);
  at::parallel_for(0, from.sizes[0], 1, [&](int64_t begin, int64_t end) {
    std::vector<Sum> sums(static_cast<size_t>(channels));
    for (int64_t n = begin; n < end; ++n) {
      add_pixels(static_cast<const Element*>(source) + n * pixels * channels, pixels, channels,
                 sums.data());
      for (int64_t c = 0; c < channels; ++c) {
        const double mean =
            static_cast<double>(sums[static_cast<size_t>(c)]) / static_cast<double>(pixels);
        const auto value = static_cast<float>((mean - zero) * scale);
        if (to.dtype == c10::kBFloat16) {
          static_cast<c10::BFloat16*>(target)[n * channels + c] = value;
        } else {
          static_cast<float*>(target)[n * channels + c] = value;
        }
      }
    }
  });
}

// The byte that a zero is made of.
int zero_byte(const Slot& slot) {
  return slot.grid ? static_cast<uint8_t>(slot.grid->zero_point) : 0;
}

// The place in the source that element `at` of the target comes from, or -1.
int64_t place(int64_t at, const Crop::Dimension& along) {
  const int64_t index = at - along.before;
  return index < 0 || index >= along.count ? -1 : along.start + index * along.step;
}

}  // namespace

void global_average(const Slot& from, const void* source, const Slot& to, void* target) {
  switch (from.dtype) {
    case c10::kByte:
      return average<uint8_t, int32_t>(from, source, to, target);
    case c10::kChar:
      return average<int8_t, int32_t>(from, source, to, target);
    case c10::kBFloat16:
      return average<c10::BFloat16, float>(from, source, to, target);
    default:
      return average<float, float>(from, source, to, target);
  }
}

void crop(const Crop& crop, const Slot& from, const void* source, const Slot& to, void* target) {
  const auto size = static_cast<int64_t>(c10::elementSize(from.dtype));
  const int64_t from_pixel = from.sizes[1] * size, to_pixel = to.sizes[1] * size;
  const int64_t before = crop.channels.before * size, copied = crop.channels.count * size;
  const int zero = zero_byte(from);
  at::parallel_for(0, to.sizes[0] * to.sizes[2], 16, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t row = place(line % to.sizes[2], crop.rows);
      const char* in_row = static_cast<const char*>(source) + crop.channels.start * size +
                           (line / to.sizes[2] * from.sizes[2] + row) * from.sizes[3] * from_pixel;
      char* out = static_cast<char*>(target) + line * to.sizes[3] * to_pixel;
      for (int64_t w = 0; w < to.sizes[3]; ++w, out += to_pixel) {
        const int64_t column = place(w, crop.columns);
        if (row < 0 || column < 0) {
          std::memset(out, zero, static_cast<size_t>(to_pixel));
          continue;
        }
        std::memset(out, zero, static_cast<size_t>(before));
        std::memcpy(out + before, in_row + column * from_pixel, static_cast<size_t>(copied));
        std::memset(out + before + copied, zero, static_cast<size_t>(to_pixel - before - copied));
      }
    }
  });
}

}  // namespace compress::engine
