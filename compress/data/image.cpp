// Images as bytes: which decoder, cropping, colour. Resizing is in resize.cpp.

#include "compress/data/image.h"

#include "compress/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>

namespace compress {
namespace {

// A photograph of 1 GiB does not exist, but a wrong path does.
constexpr uintmax_t kMaxFileBytes = uintmax_t{1} << 30;

// Python's round(): halves go to the even neighbour, as in torchvision's center crop.
int64_t half_to_even(int64_t twice) { return std::lrint(static_cast<double>(twice) / 2.0); }

}  // namespace

namespace detail {

void check_image_size(int64_t width, int64_t height, size_t file_bytes, double max_pixels_per_byte,
                      const std::string& name) {
  if (width <= 0 || height <= 0 || width > kMaxImageSide || height > kMaxImageSide ||
      width * height > kMaxImagePixels) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("an image of {} x {} pixels, expected at most {} a side and {} in all",
                            width, height, kMaxImageSide, kMaxImagePixels),
                name);
  }
  const double possible = 65536.0 + static_cast<double>(file_bytes) * max_pixels_per_byte;
  if (static_cast<double>(width) * static_cast<double>(height) > possible) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("claims {} x {} pixels, more than its {} bytes can hold", width, height,
                            file_bytes),
                name);
  }
}

}  // namespace detail

Image decode_image(const std::vector<uint8_t>& file, const std::string& name, int64_t channels) {
  static constexpr uint8_t kPng[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  static constexpr uint8_t kJpeg[] = {0xff, 0xd8, 0xff};
  const auto starts_with = [&](const uint8_t* magic, size_t size) {
    return file.size() >= size && std::memcmp(file.data(), magic, size) == 0;
  };
  if (starts_with(kPng, sizeof(kPng))) {
    return convert_channels(detail::decode_png(file.data(), file.size(), name), channels);
  }
  if (starts_with(kJpeg, sizeof(kJpeg))) {
    return convert_channels(detail::decode_jpeg(file.data(), file.size(), name), channels);
  }
  throw Error(ErrorCode::kUnsupported,
              file.empty() ? "the file is empty, expected a JPEG or a PNG"
                           : "neither a JPEG nor a PNG, by its first bytes",
              name);
}

Image read_image(const std::filesystem::path& path, int64_t channels) {
  std::error_code problem;
  const uintmax_t size = std::filesystem::file_size(path, problem);
  if (problem) throw Error(ErrorCode::kIo, "cannot read: " + problem.message(), path.string());
  if (size > kMaxFileBytes) {
    throw Error(ErrorCode::kBadFile, fmt::format("{} bytes, expected an image below 1 GiB", size),
                path.string());
  }
  std::vector<uint8_t> file(size);
  std::ifstream stream(path, std::ios::binary);
  stream.read(reinterpret_cast<char*>(file.data()), static_cast<std::streamsize>(size));
  if (!stream) {
    throw Error(ErrorCode::kIo, fmt::format("cannot read: {}", std::strerror(errno)),
                path.string());
  }
  return decode_image(file, path.string(), channels);
}

Image resize_shorter_side(const Image& image, int64_t size) {
  const int64_t shorter = std::min(image.height, image.width);
  const int64_t longer = std::max(image.height, image.width);
  const int64_t scaled = size * longer / shorter;
  if (scaled > detail::kMaxImageSide || size * scaled > detail::kMaxImagePixels) {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("an image of {} x {} pixels cannot be scaled to {} x {}, which is too large",
                    image.width, image.height, size, scaled));
  }
  return image.height < image.width ? resize_image(image, size, scaled)
                                    : resize_image(image, scaled, size);
}

Image center_crop(const Image& image, int64_t height, int64_t width) {
  COMPRESS_CHECK(height <= image.height && width <= image.width, "a crop lies within its image");
  if (height == image.height && width == image.width) return image;
  Image crop(height, width, image.channels);
  const int64_t top = half_to_even(image.height - height);
  const int64_t left = half_to_even(image.width - width);
  const int64_t row_bytes = width * image.channels;
  for (int64_t row = 0; row < height; ++row) {
    std::memcpy(crop.bytes.data() + row * row_bytes,
                image.bytes.data() + ((top + row) * image.width + left) * image.channels,
                static_cast<size_t>(row_bytes));
  }
  return crop;
}

Image convert_channels(Image image, int64_t channels) {
  COMPRESS_CHECK((channels == 1 || channels == 3) && (image.channels == 1 || image.channels == 3),
                 "an image is grey or RGB");
  if (image.channels == channels) return image;
  Image result(image.height, image.width, channels);
  const int64_t pixels = image.height * image.width;
  for (int64_t i = 0; i < pixels; ++i) {
    if (channels == 3) {
      std::memset(result.bytes.data() + i * 3, image.bytes[i], 3);
    } else {
      const uint8_t* rgb = image.bytes.data() + i * 3;
      // 0.299, 0.587, 0.114 in 16-bit fixed point.
      result.bytes[i] =
          static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
    }
  }
  return result;
}

}  // namespace compress
