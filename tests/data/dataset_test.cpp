// Batches from memory, from folders and from the fetched data sets; parts of data sets.

#include "compress/data/dataset.h"

#include "compress/data/images.h"
#include "compress/data/known.h"
#include "compress/error.h"
#include "tests/support/errors.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
namespace fs = std::filesystem;

std::vector<int64_t> numbers(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
}

// Two images of 1 x 2 pixels.
at::Tensor two_images() {
  return at::tensor({0, 0, 0, 158, 112, 49, 255, 1, 254, 7, 8, 9}, at::kByte).view({2, 1, 2, 3});
}

TEST(Normalizer, EqualsTorchBitForBit) {
  // (uint8 / 255 - mean) / std of torch 2.13, as in torchvision's ToTensor and Normalize.
  const Normalizer normalizer(normalization("imagenet"), 3);
  const uint8_t bytes[] = {0, 0, 0, 158, 112, 49, 255, 1, 254};
  const float expected[] = {-0x1.0f177ap+1f, -0x1.049248p+1f, -0x1.cdf012p+0f,
                            0x1.2cf510p-1f,  -0x1.32e9c0p-4f, -0x1.e69ca6p-1f,
                            0x1.1fdc3ap+1f,  -0x1.02549ep+1f, 0x1.4fb068p+1f};
  float interleaved[9], planes[9];
  normalizer.to_interleaved(bytes, 3, interleaved);
  normalizer.to_planes(bytes, 3, planes);
  for (int i = 0; i < 9; ++i) {
    EXPECT_EQ(interleaved[i], expected[i]) << i;
    EXPECT_EQ(planes[i % 3 * 3 + i / 3], expected[i]) << i;
  }
}

TEST(Normalizer, RefusesWhatDoesNotFit) {
  EXPECT_THAT(message_of([] { Normalizer(normalization("imagenet"), 1); }),
              HasSubstr("normalize/mean: 3 values for 1 channels"));
  EXPECT_THROW(Normalizer({{0.0}, {0.0}}, 1), Error);
  EXPECT_THROW(Normalizer({{0.0}, {1e-300}}, 1), Error);
  EXPECT_THAT(message_of([] { normalization("imagenett"); }),
              HasSubstr("did you mean `imagenet`?"));
}

TEST(MemoryImages, ComeAsPlanesOrChannelsLastWithTheSameValues) {
  const at::Tensor labels = at::tensor({1, 0}, at::kLong);
  ImageOptions options;
  const Batch planes = memory_images(two_images(), labels, {}, options)->get({1, 0});
  options.channels_last = true;
  const Batch last = memory_images(two_images(), labels, {}, options)->get({1, 0});
  EXPECT_THAT(planes.inputs[0].sizes().vec(), ElementsAre(2, 3, 1, 2));
  EXPECT_TRUE(planes.inputs[0].equal(last.inputs[0]));
  EXPECT_TRUE(last.inputs[0].is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_EQ(planes.inputs[0][0][2][0][0].item<float>(), 254.0f / 255.0f);
  EXPECT_THAT(numbers(planes.labels), ElementsAre(0, 1));
  EXPECT_THAT(planes.indices, ElementsAre(1, 0));
}

TEST(MemoryImages, GiveEachSampleOfEachEpochItsOwnRandomness) {
  ImageOptions options;
  options.transforms.push_back([](Image& image, SampleRandom& random) {
    for (uint8_t& byte : image.bytes) byte = static_cast<uint8_t>(random.below(256));
  });
  const auto data = memory_images(at::zeros({4, 8, 8, 3}, at::kByte), {}, {}, options);
  const at::Tensor all = data->get({0, 1, 2, 3}, {7, 1}).inputs[0];
  EXPECT_TRUE(data->get({2}, {7, 1}).inputs[0][0].equal(all[2]));
  EXPECT_FALSE(all[0].equal(all[1]));
  EXPECT_FALSE(data->get({2}, {7, 2}).inputs[0][0].equal(all[2]));
  EXPECT_FALSE(data->get({2}, {8, 1}).inputs[0][0].equal(all[2]));
}

TEST(Split, DividesWithoutLossTheSameWayEveryTime) {
  const auto data =
      memory_images(at::arange(50, at::kByte).view({50, 1, 1, 1}), at::arange(50), {}, {});
  const auto [taken, rest] = split(data, 20, 3);
  EXPECT_EQ(taken->size(), 20);
  EXPECT_EQ(rest->size(), 30);
  const auto first = numbers(taken->get_range(0, 20).labels);
  const auto others = numbers(rest->get_range(0, 100).labels);
  std::set<int64_t> both(first.begin(), first.end());
  both.insert(others.begin(), others.end());
  EXPECT_EQ(both.size(), 50u);
  EXPECT_EQ(first, numbers(split(data, 20, 3).first->get_range(0, 20).labels));
  EXPECT_NE(first, numbers(split(data, 20, 4).first->get_range(0, 20).labels));
  EXPECT_THROW(split(data, 51, 0), Error);
}

TEST(ImageFolder, NumbersClassesInAlphabeticalOrder) {
  const testing::ScratchDir scratch;
  const fs::path golden = testing::source_dir() / "tests/golden/data";
  fs::create_directories(scratch / "data/zebra/nested");
  fs::create_directories(scratch / "data/ant");
  fs::copy(golden / "rgb.png", scratch / "data/zebra/nested/a.PNG");
  fs::copy(golden / "cmyk.jpg", scratch / "data/zebra/b.jpeg");
  fs::copy(golden / "baseline.jpg", scratch / "data/ant/c.jpg");
  std::ofstream(scratch / "data/ant/readme.txt") << "not an image";
  const auto data = image_folder(scratch / "data", {.size = 16, .resize = 20}, {});
  EXPECT_THAT(data->info().class_names, ElementsAre("ant", "zebra"));
  const Batch batch = data->get_range(0, 10);
  EXPECT_THAT(numbers(batch.labels), ElementsAre(0, 1, 1));
  EXPECT_THAT(batch.inputs[0].sizes().vec(), ElementsAre(3, 3, 16, 16));
  // Sample 2 is rgb.png: the top left pixel of resize20_crop16.ppm, after its 13 bytes of header.
  std::ifstream stream(golden / "resize20_crop16.ppm", std::ios::binary);
  stream.seekg(13);
  for (int c = 0; c < 3; ++c) {
    EXPECT_EQ(batch.inputs[0][2][c][0][0].item<float>(), static_cast<float>(stream.get()) / 255.0f);
  }

  std::ofstream(scratch / "data/ant/d.png") << "not an image either";
  const auto broken = image_folder(scratch / "data", {.size = 16, .resize = 20}, {});
  EXPECT_THAT(message_of([&] { broken->get({1}); }), HasSubstr("d.png: neither a JPEG nor a PNG"));
}

TEST(ImageFolder, WithoutSubfoldersHasNoLabels) {
  const auto data = image_folder(testing::source_dir() / "tests/golden/data",
                                 {.size = 8, .resize = 8, .channels = 1}, {});
  EXPECT_EQ(data->size(), 12);
  EXPECT_FALSE(data->info().labeled);
  EXPECT_FALSE(data->get({0}).labels.defined());
}

TEST(ImageFolder, SaysWhatIsWrongWithTheFolder) {
  const testing::ScratchDir scratch;
  const auto open = [&] { image_folder(scratch / "data", {}, {}); };
  EXPECT_THAT(message_of(open), HasSubstr("there is no such folder"));
  fs::create_directories(scratch / "data");
  EXPECT_THAT(message_of(open), HasSubstr("no image"));
  fs::create_directories(scratch / "data/empty");
  EXPECT_THAT(message_of(open), HasSubstr("a class without an image"));
}

bool fetched(const std::string& name) { return fs::exists(data_cache_dir() / name / "SHA256SUMS"); }

TEST(KnownDataset, Cifar10HasTheLabelsAndPixelsOfTheOriginal) {
  if (!fetched("cifar10")) GTEST_SKIP() << "run tools/fetch_data cifar10";
  const auto data = known_dataset("cifar10", Split::kTest, {});
  ASSERT_EQ(data->size(), 10000);
  const Batch batch = data->get_range(0, 8);
  EXPECT_THAT(numbers(batch.labels), ElementsAre(3, 8, 8, 0, 6, 6, 1, 6));
  EXPECT_EQ(data->info().class_names[3], "cat");
  // The first test image (a cat) begins with RGB 158 112 49 in the original binary version.
  for (const auto& [channel, value] : {std::pair{0, 158}, {1, 112}, {2, 49}}) {
    EXPECT_EQ(batch.inputs[0][0][channel][0][0].item<float>(), static_cast<float>(value) / 255.0f);
  }
}

TEST(KnownDataset, Cifar10TrainingHasFiftyThousandImagesInBalance) {
  if (!fetched("cifar10")) GTEST_SKIP() << "run tools/fetch_data cifar10";
  const auto data = known_dataset("cifar10", Split::kTrain, {});
  ASSERT_EQ(data->size(), 50000);
  std::vector<int64_t> count(10);
  for (int64_t first = 0; first < 50000; first += 5000) {
    for (const int64_t label : numbers(data->get_range(first, 5000).labels)) ++count[label];
  }
  EXPECT_THAT(count, ::testing::Each(5000));
  // The first labels of data_batch_1: a frog, two trucks, a deer, two automobiles.
  EXPECT_THAT(numbers(data->get_range(0, 6).labels), ElementsAre(6, 9, 9, 4, 1, 1));
}

TEST(KnownDataset, MnistAndFashionMnistHaveTheLabelsOfTheOriginals) {
  // As published: MNIST's first test digits are 7 2 1 0 4, Fashion-MNIST's an ankle boot, a
  // pullover, two trousers.
  for (const auto& [name, labels] :
       {std::pair<std::string, std::vector<int64_t>>{"mnist", {7, 2, 1, 0}},
        {"fashion-mnist", {9, 2, 1, 1}}}) {
    if (!fetched(name)) GTEST_SKIP() << "run tools/fetch_data " << name;
    const auto data = known_dataset(name, Split::kTest, {});
    ASSERT_EQ(data->size(), 10000);
    const Batch batch = data->get_range(0, 4);
    EXPECT_EQ(numbers(batch.labels), labels);
    EXPECT_THAT(batch.inputs[0].sizes().vec(), ElementsAre(4, 1, 28, 28));
  }
}

TEST(KnownDataset, SaysHowToFetchItAndWhereItLooked) {
  const std::string message =
      message_of([] { known_dataset("cifar10", Split::kTest, {}, "/nowhere"); });
  EXPECT_THAT(message, HasSubstr("/nowhere/cifar10"));
  EXPECT_THAT(message, HasSubstr("run tools/fetch_data cifar10"));
}

TEST(Idx, IsRefusedUnlessItsSizesMatchItsBytes) {
  const testing::ScratchDir scratch;
  const auto idx = [&](std::string bytes) {
    std::ofstream(scratch / "x", std::ios::binary) << bytes;
    return detail::read_idx(scratch / "x");
  };
  using namespace std::string_literals;
  EXPECT_THAT(idx("\0\0\x08\x02\0\0\0\x02\0\0\0\x01xy"s).sizes().vec(), ElementsAre(2, 1));
  EXPECT_THROW(idx("\0\0\x08\x02\0\0\0\x02\0\0\0\x02xy"s), Error);
  EXPECT_THROW(idx("\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xffxy"s), Error);
  EXPECT_THROW(idx("\0\0\x08\x02\0\0\0\0\0\0\0\x02"s), Error);
  EXPECT_THROW(idx("\0\0\x0d\x01\0\0\0\x01\0\0\0\0"s), Error);
  EXPECT_THROW(idx("\0\0\x08\x04\0\0"s), Error);
  EXPECT_THROW(idx("x"s), Error);
}

}  // namespace
}  // namespace compress
