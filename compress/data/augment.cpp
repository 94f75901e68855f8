// Random crop, flip and cutout of bytes, in place.

#include "compress/data/augment.h"

#include "compress/error.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace compress {
namespace {

// A number in [-pad, pad].
int64_t draw_offset(SampleRandom& random, int64_t pad) {
  return static_cast<int64_t>(random.below(static_cast<uint64_t>(2 * pad + 1))) - pad;
}

// Pixel (y, x) becomes what was at (y + down, x + right), black where that is outside.
void shift(Image& image, int64_t down, int64_t right) {
  const int64_t row_bytes = image.width * image.channels;
  const int64_t skip = std::min(std::abs(right), image.width) * image.channels;
  const auto kept = static_cast<size_t>(row_bytes - skip);
  uint8_t* bytes = image.bytes.data();
  for (int64_t i = 0; i < image.height; ++i) {
    // In the direction that reads each row before it is overwritten.
    const int64_t y = down >= 0 ? i : image.height - 1 - i;
    uint8_t* to = bytes + y * row_bytes;
    if (y + down < 0 || y + down >= image.height) {
      std::memset(to, 0, static_cast<size_t>(row_bytes));
      continue;
    }
    const uint8_t* from = bytes + (y + down) * row_bytes;
    if (right >= 0) {
      std::memmove(to, from + skip, kept);
      std::memset(to + kept, 0, static_cast<size_t>(skip));
    } else {
      std::memmove(to + skip, from, kept);
      std::memset(to, 0, static_cast<size_t>(skip));
    }
  }
}

void mirror(Image& image) {
  const int64_t channels = image.channels;
  uint8_t* row = image.bytes.data();
  for (int64_t y = 0; y < image.height; ++y, row += image.width * channels) {
    uint8_t* left = row;
    uint8_t* right = row + (image.width - 1) * channels;
    for (; left < right; left += channels, right -= channels) {
      for (int64_t c = 0; c < channels; ++c) std::swap(left[c], right[c]);
    }
  }
}

void fill_square(Image& image, int64_t top, int64_t left, int64_t size,
                 const std::vector<uint8_t>& fill) {
  const auto channels = static_cast<size_t>(image.channels);
  COMPRESS_CHECK(fill.size() == 1 || fill.size() == channels, "a colour has a byte a channel");
  const int64_t bottom = std::min(top + size, image.height);
  const int64_t right = std::min(left + size, image.width);
  const int64_t first = std::max<int64_t>(left, 0);
  for (int64_t y = std::max<int64_t>(top, 0); y < bottom; ++y) {
    uint8_t* pixel = image.bytes.data() + (y * image.width + first) * image.channels;
    for (int64_t x = first; x < right; ++x, pixel += channels) {
      for (size_t c = 0; c < channels; ++c) pixel[c] = fill[fill.size() == 1 ? 0 : c];
    }
  }
}

}  // namespace

ImageTransform image_transform(const RandomCrop& crop) {
  return [pad = crop.pad](Image& image, SampleRandom& random) {
    const int64_t down = draw_offset(random, pad);
    const int64_t right = draw_offset(random, pad);
    shift(image, down, right);
  };
}

ImageTransform image_transform(const RandomFlip& flip) {
  return [probability = flip.probability](Image& image, SampleRandom& random) {
    if (random.uniform() < probability) mirror(image);
  };
}

ImageTransform image_transform(const Cutout& cutout, std::vector<uint8_t> fill) {
  return [size = cutout.size, fill = std::move(fill)](Image& image, SampleRandom& random) {
    const auto y = static_cast<int64_t>(random.below(static_cast<uint64_t>(image.height)));
    const auto x = static_cast<int64_t>(random.below(static_cast<uint64_t>(image.width)));
    fill_square(image, y - size / 2, x - size / 2, size, fill);
  };
}

std::vector<ImageTransform> image_transforms(const std::vector<Augmentation>& list,
                                             const std::vector<uint8_t>& fill) {
  std::vector<ImageTransform> transforms;
  for (const Augmentation& element : list) {
    if (const auto* cutout = std::get_if<Cutout>(&element.transform)) {
      transforms.push_back(image_transform(*cutout, fill));
    } else if (const auto* crop = std::get_if<RandomCrop>(&element.transform)) {
      transforms.push_back(image_transform(*crop));
    } else {
      transforms.push_back(image_transform(std::get<RandomFlip>(element.transform)));
    }
  }
  return transforms;
}

std::vector<uint8_t> mean_pixel(const Normalization& normalization) {
  std::vector<uint8_t> pixel;
  for (const double mean : normalization.mean) {
    pixel.push_back(static_cast<uint8_t>(std::lround(std::clamp(255.0 * mean, 0.0, 255.0))));
  }
  return pixel;
}

}  // namespace compress
