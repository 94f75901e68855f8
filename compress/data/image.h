// Images as bytes: decoding of JPEG and PNG, resizing, cropping, colour.
//
// All of it equals what Pillow gives (and so torchvision's ImageFolder, Resize and CenterCrop on
// Pillow images), because published accuracies were measured on those pixels.

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace compress {

/// Interleaved bytes [height, width, channels]; 1 channel is grey, 3 are RGB.
struct Image {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;
  std::vector<uint8_t> bytes;

  Image() = default;
  Image(int64_t height, int64_t width, int64_t channels)
      : height(height),
        width(width),
        channels(channels),
        bytes(static_cast<size_t>(height * width * channels)) {}
};

/// Decodes a JPEG or a PNG, recognised by its first bytes, to RGB (`channels` 3) or grey (1).
///
/// 16-bit samples keep their high byte, an alpha channel is dropped, palettes and CMYK become RGB.
/// No orientation tag is applied and no colour profile. `name` is for messages. Throws
/// Error(kBadFile) for a damaged, truncated or hostile file, with memory bounded as
/// `detail::check_image_size` says, Error(kUnsupported) for another format.
Image decode_image(const std::vector<uint8_t>& file, const std::string& name, int64_t channels);

/// Reads and decodes a file; throws Error(kIo) if it cannot be read.
Image read_image(const std::filesystem::path& path, int64_t channels);

/// Bilinear with antialiasing, like Pillow's `resize(..., BILINEAR)`: bit for bit.
Image resize_image(const Image& image, int64_t height, int64_t width);

/// Scales so that the shorter side becomes `size`, like torchvision's `Resize(size)`.
Image resize_shorter_side(const Image& image, int64_t size);

/// The middle `height` x `width`, like torchvision's `CenterCrop`; the image must be large enough.
Image center_crop(const Image& image, int64_t height, int64_t width);

/// To 1 or 3 channels; grey is ITU-R 601 luma as Pillow rounds it.
Image convert_channels(Image image, int64_t channels);

namespace detail {

/// No side may be longer, whatever the file says.
inline constexpr int64_t kMaxImageSide = 65500;
/// 178 million pixels, twice what Pillow warns of: at most 0.5 GB of RGB.
inline constexpr int64_t kMaxImagePixels = 178956970;

/// Throws Error(kBadFile) if an image of this size is beyond the limits above, or cannot come out
/// of `file_bytes` bytes, at most `max_pixels_per_byte` a byte (plus one small picture for free).
/// So memory is bounded by the file's size, and a header alone cannot make us allocate.
void check_image_size(int64_t width, int64_t height, size_t file_bytes, double max_pixels_per_byte,
                      const std::string& name);

Image decode_png(const uint8_t* data, size_t size, const std::string& name);
Image decode_jpeg(const uint8_t* data, size_t size, const std::string& name);

}  // namespace detail
}  // namespace compress
