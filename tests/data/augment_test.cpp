// Crop, flip and cutout: every outcome by hand on tiny images, LibTorch's operators on larger ones.

#include "compress/data/augment.h"

#include "compress/data/loader.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>

namespace compress {
namespace {

using ::testing::ElementsAre;
using Bytes = std::vector<uint8_t>;

Image grey(int64_t height, int64_t width, const Bytes& bytes) {
  Image image(height, width, 1);
  image.bytes = bytes;
  return image;
}

// Bytes that are all different from zero and from their neighbours.
Image patterned(int64_t height, int64_t width, int64_t channels) {
  Image image(height, width, channels);
  for (size_t i = 0; i < image.bytes.size(); ++i) {
    image.bytes[i] = static_cast<uint8_t>(1 + i * 7 % 255);
  }
  return image;
}

at::Tensor tensor_of(const Image& image) {
  at::Tensor tensor = at::empty({image.height, image.width, image.channels}, at::kByte);
  std::copy(image.bytes.begin(), image.bytes.end(), tensor.mutable_data_ptr<uint8_t>());
  return tensor;
}

// The bytes that come out, with how often, for `samples` samples.
std::map<Bytes, int> outcomes(const ImageTransform& transform, const Image& image, int samples) {
  std::map<Bytes, int> counts;
  for (int i = 0; i < samples; ++i) {
    Image changed = image;
    SampleRandom random({17, static_cast<uint64_t>(i)});
    transform(changed, random);
    ++counts[changed.bytes];
  }
  return counts;
}

TEST(RandomCrop, TakesEveryWindowOfThePaddedImageEquallyOften) {
  // 0 0 0 0
  // 0 1 2 0   has nine windows of 2 x 2.
  // 0 3 4 0
  // 0 0 0 0
  const auto counts =
      outcomes(image_transform(RandomCrop{.pad = 1}), grey(2, 2, {1, 2, 3, 4}), 9000);
  const std::vector<Bytes> windows = {{0, 0, 0, 1}, {0, 0, 1, 2}, {0, 0, 2, 0},
                                      {0, 1, 0, 3}, {1, 2, 3, 4}, {2, 0, 4, 0},
                                      {0, 3, 0, 0}, {3, 4, 0, 0}, {4, 0, 0, 0}};
  EXPECT_EQ(counts.size(), windows.size());
  for (const Bytes& window : windows) {
    ASSERT_TRUE(counts.contains(window));
    // Binomial(9000, 1/9): mean 1000, deviation 29.8; six deviations.
    EXPECT_NEAR(counts.at(window), 1000, 179);
  }
}

TEST(RandomCrop, EqualsPaddingAndSlicing) {
  // The definition of torchvision's RandomCrop(size, padding=pad), with ATen's pad and slices. The
  // row is drawn before the column, each from 2 pad + 1 places.
  for (const auto& [height, width, channels, pad] :
       {std::array<int64_t, 4>{8, 5, 3, 4}, {5, 8, 1, 2}, {3, 3, 4, 5}, {1, 7, 3, 1}}) {
    const Image image = patterned(height, width, channels);
    const at::Tensor padded = at::constant_pad_nd(tensor_of(image), {0, 0, pad, pad, pad, pad}, 0);
    const ImageTransform transform = image_transform(RandomCrop{.pad = pad});
    for (uint64_t sample = 0; sample < 300; ++sample) {
      SampleRandom draws({sample}), random({sample});
      const auto places = static_cast<uint64_t>(2 * pad + 1);
      const auto top = static_cast<int64_t>(draws.below(places));
      const auto left = static_cast<int64_t>(draws.below(places));
      Image changed = image;
      transform(changed, random);
      ASSERT_TRUE(
          tensor_of(changed).equal(padded.slice(0, top, top + height).slice(1, left, left + width)))
          << top << ", " << left;
      ASSERT_EQ(draws.next(), random.next());
    }
  }
}

TEST(RandomFlip, MirrorsItsShareOfTheSamples) {
  for (const int64_t channels : {1, 3, 4}) {
    for (const int64_t width : {1, 2, 7, 8}) {
      const Image image = patterned(3, width, channels);
      Image changed = image;
      SampleRandom random({1});
      image_transform(RandomFlip{.probability = 1.0})(changed, random);
      EXPECT_TRUE(tensor_of(changed).equal(tensor_of(image).flip(1))) << width;
    }
  }
  const Image image = grey(1, 2, {1, 2});
  EXPECT_THAT(outcomes(image_transform(RandomFlip{.probability = 0.0}), image, 1000),
              ElementsAre(std::pair(Bytes{1, 2}, 1000)));
  const auto half = outcomes(image_transform(RandomFlip{}), image, 10000);
  EXPECT_NEAR(half.at({2, 1}), 5000, 300);  // binomial(10000, 1/2): six deviations of 50
  const auto rare = outcomes(image_transform(RandomFlip{.probability = 0.1}), image, 10000);
  EXPECT_NEAR(rare.at({2, 1}), 1000, 180);  // six deviations of 30
}

TEST(Cutout, CutsTheSquareAtTheBorder) {
  // Size 2 on 4 x 4: rows y - 1 and y. A centre in row 0 leaves one row, so of the 16 centres one
  // leaves 1 pixel, six leave 2, nine leave 4. Row 0 is hit from rows 0 and 1, row 3 from 3 alone.
  const auto counts =
      outcomes(image_transform(Cutout{.size = 2}, {9}), grey(4, 4, Bytes(16, 1)), 16000);
  EXPECT_EQ(counts.size(), 16u);
  std::map<int64_t, int> areas;
  std::vector<int> rows(4), columns(4);
  for (const auto& [bytes, times] : counts) {
    areas[std::count(bytes.begin(), bytes.end(), 9)] += times;
    EXPECT_EQ(std::count(bytes.begin(), bytes.end(), 1) + std::count(bytes.begin(), bytes.end(), 9),
              16);
    for (int i = 0; i < 4; ++i) {
      bool in_row = false, in_column = false;
      for (int j = 0; j < 4; ++j) {
        in_row |= bytes[static_cast<size_t>(4 * i + j)] == 9;
        in_column |= bytes[static_cast<size_t>(4 * j + i)] == 9;
      }
      rows[static_cast<size_t>(i)] += in_row ? times : 0;
      columns[static_cast<size_t>(i)] += in_column ? times : 0;
    }
  }
  // Binomial(16000, p), six deviations.
  EXPECT_EQ(areas.size(), 3u);
  EXPECT_NEAR(areas[1], 1000, 184);
  EXPECT_NEAR(areas[2], 6000, 368);
  EXPECT_NEAR(areas[4], 9000, 377);
  for (const std::vector<int>& hits : {rows, columns}) {
    for (const int i : {0, 1, 2}) EXPECT_NEAR(hits[static_cast<size_t>(i)], 8000, 380);
    EXPECT_NEAR(hits[3], 4000, 329);
  }
}

TEST(Cutout, PutsAnOddSquareAboutItsCentre) {
  const auto counts =
      outcomes(image_transform(Cutout{.size = 3}, {0}), grey(3, 3, Bytes(9, 7)), 900);
  // The nine centres give nine different rests; the middle one nothing but the square.
  EXPECT_EQ(counts.size(), 9u);
  EXPECT_TRUE(counts.contains(Bytes(9, 0)));
  EXPECT_TRUE(counts.contains({0, 0, 7, 0, 0, 7, 7, 7, 7}));
  EXPECT_TRUE(counts.contains({7, 7, 7, 7, 0, 0, 7, 0, 0}));
}

TEST(Cutout, FillsWithItsColour) {
  Image image = patterned(2, 2, 3);
  SampleRandom random({1});
  image_transform(Cutout{.size = 8}, {10, 20, 30})(image, random);
  EXPECT_THAT(image.bytes, ElementsAre(10, 20, 30, 10, 20, 30, 10, 20, 30, 10, 20, 30));
  image_transform(Cutout{.size = 8}, {5})(image, random);
  EXPECT_THAT(image.bytes, ::testing::Each(5));
}

TEST(MeanPixel, IsWhatNormalisationMapsNextToZero) {
  EXPECT_THAT(mean_pixel(normalization("cifar10")), ElementsAre(125, 123, 114));
  EXPECT_THAT(mean_pixel(normalization("imagenet")), ElementsAre(124, 116, 104));
  EXPECT_THAT(mean_pixel(normalization("mnist")), ElementsAre(33));
  EXPECT_THAT(mean_pixel({{-0.5, 0.0, 1e6}, {1.0}}), ElementsAre(0, 0, 255));
}

// Crop by 1, flip, cutout of one pixel, in this order.
ImageOptions all_three() {
  ImageOptions options;
  options.transforms =
      image_transforms({{RandomCrop{.pad = 1}}, {RandomFlip{}}, {Cutout{.size = 1}}}, {9});
  return options;
}

TEST(Augmentation, GivesTheSamePixelsToASampleForGood) {
  // SplitMix64 keyed with seed 1, epoch 2 and the sample, run in Python, draws: windows (0, 0),
  // (0, 0), (2, 0); flips the first and the third; squares at (1, 0), (2, 2), (0, 0).
  const at::Tensor image = at::tensor({1, 2, 3, 4, 5, 6, 7, 8, 10}, at::kByte).view({1, 3, 3, 1});
  const auto data = memory_images(image.repeat({3, 1, 1, 1}), {}, {}, all_three());
  const at::Tensor expected = at::tensor({0, 0, 0, 9, 1, 0, 5, 4, 0,  //
                                          0, 0, 0, 0, 1, 2, 0, 4, 9,  //
                                          9, 4, 0, 8, 7, 0, 0, 0, 0},
                                         at::kByte)
                                  .view({3, 1, 3, 3});
  EXPECT_TRUE(data->get({0, 1, 2}, {1, 2}).inputs[0].equal(expected.to(at::kFloat).div(255.0)));
}

TEST(Augmentation, DependsOnSeedEpochAndSampleAlone) {
  const at::Tensor bytes = at::arange(40 * 64, at::kInt).remainder(251).to(at::kByte);
  const auto data = memory_images(bytes.view({40, 8, 8, 1}), {}, {}, all_three());
  const auto epoch = [&](uint64_t seed, uint64_t number, int64_t batch_size, int threads) {
    Loader loader(data, {.batch_size = batch_size, .seed = seed, .threads = threads});
    loader.start(number);
    std::vector<at::Tensor> inputs;
    while (auto batch = loader.next()) inputs.push_back(batch->inputs[0]);
    return at::cat(inputs);
  };
  const at::Tensor expected = epoch(1, 2, 40, 0);
  EXPECT_TRUE(epoch(1, 2, 7, 3).equal(expected));
  EXPECT_FALSE(epoch(1, 3, 40, 0).equal(expected));
  EXPECT_FALSE(epoch(2, 2, 40, 0).equal(expected));
}

}  // namespace
}  // namespace compress
