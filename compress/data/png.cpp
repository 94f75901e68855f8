// PNG through libpng, to 8-bit grey or RGB.

#include "compress/data/image.h"
#include "compress/error.h"

#include <png.h>

#include <csetjmp>
#include <cstring>
#include <memory>

namespace compress::detail {
namespace {

// Deflate cannot expand more than 1032 times; an 1-bit image has 8 pixels a byte.
constexpr double kMaxPixelsPerByte = 1032.0 * 8;

// What libpng's callbacks need. It leaves by longjmp, so nothing with a destructor may live in the
// frames that it jumps over: everything is here or in the caller's.
struct Reader {
  const uint8_t* data;
  size_t left;
  char message[160];
  png_structp png = nullptr;
  png_infop info = nullptr;

  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
};

void read_bytes(png_structp png, png_bytep out, size_t count) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (count > reader->left) png_error(png, "the file ends too early");
  std::memcpy(out, reader->data, count);
  reader->data += count;
  reader->left -= count;
}

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* reader = static_cast<Reader*>(png_get_error_ptr(png));
  std::strncpy(reader->message, message, sizeof(reader->message) - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

// Returns false after an error. Leaves an image of 1 or 3 channels to be read row by row.
bool read_header(Reader& reader, int64_t& width, int64_t& height, int64_t& channels, int& passes) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  png_set_read_fn(reader.png, &reader, read_bytes);
  png_set_user_limits(reader.png, kMaxImageSide, kMaxImageSide);
  png_set_chunk_cache_max(reader.png, 64);
  png_set_chunk_malloc_max(reader.png, 8u << 20);
  png_read_info(reader.png, reader.info);
  png_set_strip_16(reader.png);
  png_set_packing(reader.png);
  const int color = png_get_color_type(reader.png, reader.info);
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(reader.png);
  if (color == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(reader.png);
  png_set_strip_alpha(reader.png);
  passes = png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  width = png_get_image_width(reader.png, reader.info);
  height = png_get_image_height(reader.png, reader.info);
  channels = png_get_channels(reader.png, reader.info);
  return true;
}

bool read_rows(Reader& reader, uint8_t* out, int64_t height, int64_t row_bytes, int passes) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  for (int pass = 0; pass < passes; ++pass) {
    for (int64_t row = 0; row < height; ++row) {
      png_read_row(reader.png, out + row * row_bytes, nullptr);
    }
  }
  png_read_end(reader.png, nullptr);
  return true;
}

}  // namespace

Image decode_png(const uint8_t* data, size_t size, const std::string& name) {
  Reader reader{data, size, {}};
  const auto failed = [&] {
    return Error(ErrorCode::kBadFile, std::string("not a sound PNG: ") + reader.message, name);
  };
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, on_error, on_warning);
  if (reader.png != nullptr) reader.info = png_create_info_struct(reader.png);
  COMPRESS_CHECK(reader.info != nullptr, "libpng has no memory, or is not what we compiled for");
  int64_t width = 0, height = 0, channels = 0;
  int passes = 0;
  if (!read_header(reader, width, height, channels, passes)) throw failed();
  check_image_size(width, height, size, kMaxPixelsPerByte, name);
  const auto row_bytes = static_cast<int64_t>(png_get_rowbytes(reader.png, reader.info));
  COMPRESS_CHECK((channels == 1 || channels == 3) && row_bytes == width * channels,
                 "libpng gives grey or RGB of 8 bits");
  Image image(height, width, channels);
  if (!read_rows(reader, image.bytes.data(), height, row_bytes, passes)) throw failed();
  return image;
}

}  // namespace compress::detail
