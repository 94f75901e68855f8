// Pixels equal Pillow's (tests/golden/data/make_images.py); hostile images are refused.

#include "compress/data/image.h"

#include "compress/error.h"
#include "tests/support/paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

namespace compress {
namespace {

using ::testing::HasSubstr;

std::filesystem::path golden(const std::string& name) {
  return testing::source_dir() / "tests/golden/data" / name;
}

std::vector<uint8_t> bytes_of(const std::string& name) {
  std::ifstream stream(golden(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// A binary PPM or PGM as Pillow writes it.
Image pnm(const std::string& name) {
  std::ifstream stream(golden(name), std::ios::binary);
  std::string magic;
  int64_t width = 0, height = 0, maximum = 0;
  stream >> magic >> width >> height >> maximum;
  stream.get();
  Image image(height, width, magic == "P6" ? 3 : 1);
  stream.read(reinterpret_cast<char*>(image.bytes.data()),
              static_cast<std::streamsize>(image.bytes.size()));
  EXPECT_TRUE(stream.good() && maximum == 255) << name;
  return image;
}

int largest_difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.height, b.height);
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.channels, b.channels);
  if (a.bytes.size() != b.bytes.size()) return 256;
  int largest = 0;
  for (size_t i = 0; i < a.bytes.size(); ++i) {
    largest = std::max(largest, std::abs(int{a.bytes[i]} - int{b.bytes[i]}));
  }
  return largest;
}

class Decoding : public ::testing::TestWithParam<const char*> {};

TEST_P(Decoding, GivesThePixelsOfPillow) {
  const std::string name = GetParam();
  const std::string stem = name.substr(0, name.find('.'));
  EXPECT_EQ(largest_difference(read_image(golden(name), 3), pnm(stem + ".ppm")), 0);
}

INSTANTIATE_TEST_SUITE_P(Formats, Decoding,
                         ::testing::Values("rgb.png", "grey.png", "bilevel.png", "palette.png",
                                           "rgba.png", "rgb16.png", "interlaced.png",
                                           "baseline.jpg", "full_chroma.jpg", "progressive.jpg",
                                           "grey_jpeg.jpg", "cmyk.jpg"));

TEST(Image, TurnsGreyAsPillowDoes) {
  EXPECT_EQ(largest_difference(read_image(golden("rgb.png"), 1), pnm("rgb.pgm")), 0);
  EXPECT_EQ(largest_difference(read_image(golden("baseline.jpg"), 1), pnm("baseline.pgm")), 0);
}

TEST(Image, ResizesAsPillowDoes) {
  const Image image = read_image(golden("rgb.png"), 3);
  for (const auto& [width, height] :
       {std::pair{17, 13}, {80, 60}, {41, 10}, {9, 31}, {1, 1}, {41, 31}}) {
    const std::string name = width == 41 && height == 31 ? "rgb.ppm"
                                                         : "resize_" + std::to_string(width) + "x" +
                                                               std::to_string(height) + ".ppm";
    EXPECT_EQ(largest_difference(resize_image(image, height, width), pnm(name)), 0) << name;
  }
  EXPECT_EQ(largest_difference(resize_image(pnm("rgb.pgm"), 13, 17), pnm("resize_17x13.pgm")), 0);
}

TEST(Image, ResizesTheShorterSideAndCropsAsTorchvisionDoes) {
  const Image scaled = resize_shorter_side(read_image(golden("rgb.png"), 3), 20);
  EXPECT_EQ(scaled.height, 20);
  EXPECT_EQ(scaled.width, 26);
  EXPECT_EQ(largest_difference(center_crop(scaled, 16, 16), pnm("resize20_crop16.ppm")), 0);
}

TEST(Image, RefusesAPictureTooThinToScale) {
  EXPECT_THROW(resize_shorter_side(Image(1, 60000, 1), 256), Error);
}

TEST(HostileImage, IsRefusedWhereverItIsCut) {
  for (const std::string name : {"rgb.png", "interlaced.png", "palette.png", "baseline.jpg",
                                 "progressive.jpg", "cmyk.jpg"}) {
    const std::vector<uint8_t> whole = bytes_of(name);
    ASSERT_GT(whole.size(), 100u);
    // The end markers take 12 bytes (IEND) and 2 (EOI): without them a file is truncated too.
    for (size_t size = 0; size < whole.size(); size += size < 200 ? 1 : 17) {
      const std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<long>(size));
      EXPECT_THROW(decode_image(cut, name, 3), Error) << name << " cut to " << size;
    }
  }
}

TEST(HostileImage, WithAnyByteChangedIsAnErrorOrAnImage) {
  for (const std::string name : {"rgb16.png", "palette.png", "progressive.jpg", "cmyk.jpg"}) {
    const std::vector<uint8_t> whole = bytes_of(name);
    for (size_t i = 0; i < whole.size(); ++i) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        std::vector<uint8_t> damaged = whole;
        damaged[i] ^= static_cast<uint8_t>(flip);
        try {
          const Image image = decode_image(damaged, name, 3);
          EXPECT_EQ(image.bytes.size(), size_t(image.height * image.width * 3));
        } catch (const Error& error) {
          EXPECT_THAT(error.what(), HasSubstr(name));
        }
      }
    }
  }
}

long peak_kilobytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(HostileImage, ThatClaimsAHugeSizeTakesNoMemory) {
  const long before = peak_kilobytes();
  std::vector<uint8_t> jpeg = bytes_of("baseline.jpg");
  size_t frame = 0;  // the marker SOF0: ff c0, length, precision, height, width
  while (!(jpeg[frame] == 0xff && jpeg[frame + 1] == 0xc0)) ++frame;
  std::memcpy(jpeg.data() + frame + 5, "\x30\x00\x30\x00", 4);  // 12288 x 12288
  EXPECT_THROW(decode_image(jpeg, "huge.jpg", 3), Error);
  std::vector<uint8_t> progressive = bytes_of("progressive.jpg");
  for (frame = 0; !(progressive[frame] == 0xff && progressive[frame + 1] == 0xc2);) ++frame;
  std::memcpy(progressive.data() + frame + 5, "\x30\x00\x30\x00", 4);
  EXPECT_THROW(decode_image(progressive, "huge.jpg", 3), Error);

  // A sound PNG header of 12288 x 12288, and the beginning of its pixels.
  const std::string header(
      "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x30\0\0\0\x30\0\x08\x02\0\0\0\x34\xe0\x05\x0b"
      "\0\0\0\x40IDAT\x78\xda",
      43);
  const std::vector<uint8_t> png(header.begin(), header.end());
  EXPECT_THROW(decode_image(png, "huge.png", 3), Error);
  EXPECT_LT(peak_kilobytes() - before, 20 * 1024) << "kB more; one such image takes 432 MB";
}

TEST(HostileImage, OfAnotherKindSaysWhatItIs) {
  const auto message = [](std::vector<uint8_t> bytes) -> std::string {
    try {
      decode_image(bytes, "x.jpg", 3);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(message({}), HasSubstr("x.jpg: the file is empty"));
  EXPECT_THAT(message({'G', 'I', 'F', '8', '9', 'a'}), HasSubstr("neither a JPEG nor a PNG"));
  EXPECT_THAT(message({0xff, 0xd8, 0xff, 0xd9}), HasSubstr("x.jpg: not a sound JPEG"));
}

TEST(Image, NamesAMissingFileAndAFolder) {
  EXPECT_THROW(read_image(golden("absent.png"), 3), Error);
  EXPECT_THROW(read_image(testing::source_dir(), 3), Error);
}

}  // namespace
}  // namespace compress
