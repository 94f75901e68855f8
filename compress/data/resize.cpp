// Separable bilinear resizing with antialiasing.
//
// A triangle filter whose width grows with the reduction, first along rows and then along columns,
// each pass rounded to bytes; weights in 22-bit fixed point. These choices are Pillow's, so that
// the result is the same byte for byte.

#include "compress/data/image.h"
#include "compress/error.h"

#include <algorithm>
#include <cmath>

namespace compress {
namespace {

// 8 bits of the sample, 2 of headroom for the sum, the rest of 32 for the weight.
constexpr int kWeightBits = 32 - 8 - 2;

// The contributions to every position of one output line.
struct Weights {
  struct Span {
    int64_t first = 0;  // in the input
    int64_t count = 0;  // how many neighbours
    size_t offset = 0;  // of their weights
  };
  std::vector<Span> spans;
  std::vector<int32_t> values;
};

Weights triangle_weights(int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double support = std::max(scale, 1.0);
  const double inverse = 1.0 / support;
  Weights weights;
  std::vector<double> line;
  for (int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const auto last = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), in);
    line.clear();
    double sum = 0;
    for (int64_t x = first; x < last; ++x) {
      const double distance = std::abs((static_cast<double>(x) - center + 0.5) * inverse);
      line.push_back(distance < 1.0 ? 1.0 - distance : 0.0);
      sum += line.back();
    }
    weights.spans.push_back({first, last - first, weights.values.size()});
    for (const double weight : line) {
      weights.values.push_back(
          static_cast<int32_t>(0.5 + weight / sum * static_cast<double>(1 << kWeightBits)));
    }
  }
  return weights;
}

uint8_t rounded(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

template <int kChannels>
Image resize_rows(const Image& image, int64_t width) {
  const Weights weights = triangle_weights(image.width, width);
  Image result(image.height, width, kChannels);
  for (int64_t y = 0; y < image.height; ++y) {
    const uint8_t* in = image.bytes.data() + y * image.width * kChannels;
    uint8_t* out = result.bytes.data() + y * width * kChannels;
    for (const Weights::Span& span : weights.spans) {
      int32_t sums[kChannels];
      std::fill_n(sums, kChannels, kHalf);
      const int32_t* weight = weights.values.data() + span.offset;
      const uint8_t* from = in + span.first * kChannels;
      for (int64_t k = 0; k < span.count; ++k) {
        for (int c = 0; c < kChannels; ++c) sums[c] += from[k * kChannels + c] * weight[k];
      }
      for (int c = 0; c < kChannels; ++c) *out++ = rounded(sums[c]);
    }
  }
  return result;
}

Image resize_columns(const Image& image, int64_t height) {
  const Weights weights = triangle_weights(image.height, height);
  Image result(height, image.width, image.channels);
  const int64_t row_bytes = image.width * image.channels;
  std::vector<int32_t> sums(static_cast<size_t>(row_bytes));
  for (int64_t y = 0; y < height; ++y) {
    const Weights::Span& span = weights.spans[y];
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int64_t k = 0; k < span.count; ++k) {
      const int32_t weight = weights.values[span.offset + k];
      const uint8_t* in = image.bytes.data() + (span.first + k) * row_bytes;
      for (int64_t i = 0; i < row_bytes; ++i) sums[i] += in[i] * weight;
    }
    uint8_t* out = result.bytes.data() + y * row_bytes;
    for (int64_t i = 0; i < row_bytes; ++i) out[i] = rounded(sums[i]);
  }
  return result;
}

}  // namespace

Image resize_image(const Image& image, int64_t height, int64_t width) {
  COMPRESS_CHECK(height > 0 && width > 0 && height <= detail::kMaxImageSide &&
                     width <= detail::kMaxImageSide && height * width <= detail::kMaxImagePixels,
                 "a size to resize to is within the limits");
  COMPRESS_CHECK(image.channels == 1 || image.channels == 3, "an image is grey or RGB");
  const Image* source = &image;
  Image narrowed;
  if (width != image.width) {
    narrowed = image.channels == 1 ? resize_rows<1>(image, width) : resize_rows<3>(image, width);
    source = &narrowed;
  }
  return height == source->height ? *source : resize_columns(*source, height);
}

}  // namespace compress
