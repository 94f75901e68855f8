// JPEG through libjpeg, to 8-bit grey or RGB.

#include "compress/data/image.h"
#include "compress/error.h"

#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <csetjmp>
#include <cstddef>
#include <cstdio>  // jpeglib.h needs size_t and FILE

namespace compress::detail {
namespace {

// Huffman coding takes at least one bit for a block of 8 x 8.
constexpr double kMaxPixelsPerByte = 8 * 64;
// A progressive file can repeat scans without end; encoders write about ten.
constexpr int kMaxScans = 256;

// libjpeg leaves by longjmp: nothing with a destructor may live in the frames that it jumps over.
struct Reader {
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  jpeg_decompress_struct jpeg;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];

  Reader() {
    jpeg.err = jpeg_std_error(&errors);
    errors.error_exit = on_error;
    errors.emit_message = on_message;
    progress.progress_monitor = on_progress;
    jpeg.client_data = this;
    message[0] = 0;
  }
  ~Reader() { jpeg_destroy_decompress(&jpeg); }

  [[noreturn]] static void on_error(j_common_ptr jpeg) {
    auto* reader = static_cast<Reader*>(jpeg->client_data);
    reader->errors.format_message(jpeg, reader->message);
    std::longjmp(reader->escape, 1);
  }
  static void on_message(j_common_ptr jpeg, int level) {
    // A file that ends too early would be filled with grey. Other warnings are tolerated, as
    // Pillow does: real photographs have stray bytes between their markers.
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) on_error(jpeg);
  }
  static void on_progress(j_common_ptr jpeg) {
    auto* reader = static_cast<Reader*>(jpeg->client_data);
    if (reader->jpeg.input_scan_number <= kMaxScans) return;
    std::snprintf(reader->message, sizeof(reader->message), "more than %d scans", kMaxScans);
    std::longjmp(reader->escape, 1);
  }
};

bool read_header(Reader& reader, const uint8_t* data, size_t size) {
  if (setjmp(reader.escape)) return false;
  jpeg_create_decompress(&reader.jpeg);
  reader.jpeg.client_data = &reader;
  reader.jpeg.progress = &reader.progress;
  jpeg_mem_src(&reader.jpeg, data, size);
  jpeg_read_header(&reader.jpeg, TRUE);
  return true;
}

bool start(Reader& reader) {
  if (setjmp(reader.escape)) return false;
  jpeg_start_decompress(&reader.jpeg);
  return true;
}

bool read_rows(Reader& reader, uint8_t* out, size_t row_bytes) {
  if (setjmp(reader.escape)) return false;
  while (reader.jpeg.output_scanline < reader.jpeg.output_height) {
    JSAMPROW row = out + reader.jpeg.output_scanline * row_bytes;
    jpeg_read_scanlines(&reader.jpeg, &row, 1);
  }
  jpeg_finish_decompress(&reader.jpeg);
  return true;
}

// Adobe writes CMYK inverted, and everyone follows: 255 is no ink.
Image from_inverted_cmyk(const Image& cmyk) {
  Image image(cmyk.height, cmyk.width, 3);
  const int64_t pixels = cmyk.height * cmyk.width;
  for (int64_t i = 0; i < pixels; ++i) {
    const int white = cmyk.bytes[i * 4 + 3];  // 255 - black
    for (int c = 0; c < 3; ++c) {
      const int product = (255 - cmyk.bytes[i * 4 + c]) * white + 128;
      const int ink = ((product >> 8) + product) >> 8;  // product / 255, rounded
      image.bytes[i * 3 + c] = static_cast<uint8_t>(std::clamp(white - ink, 0, 255));
    }
  }
  return image;
}

}  // namespace

Image decode_jpeg(const uint8_t* data, size_t size, const std::string& name) {
  Reader reader;
  const auto failed = [&] {
    return Error(ErrorCode::kBadFile, std::string("not a sound JPEG: ") + reader.message, name);
  };
  if (!read_header(reader, data, size)) throw failed();
  check_image_size(reader.jpeg.image_width, reader.jpeg.image_height, size, kMaxPixelsPerByte,
                   name);
  const int components = reader.jpeg.num_components;
  if (components != 1 && components != 3 && components != 4) {
    throw Error(ErrorCode::kUnsupported,
                "a JPEG of " + std::to_string(components) + " components, expected 1, 3 or 4",
                name);
  }
  reader.jpeg.out_color_space =
      components == 1 ? JCS_GRAYSCALE : (components == 3 ? JCS_RGB : JCS_CMYK);
  if (!start(reader)) throw failed();
  Image image(reader.jpeg.output_height, reader.jpeg.output_width, reader.jpeg.output_components);
  const auto row_bytes = static_cast<size_t>(image.width * image.channels);
  if (!read_rows(reader, image.bytes.data(), row_bytes)) throw failed();
  return components == 4 ? from_inverted_cmyk(image) : image;
}

}  // namespace compress::detail
