// The loader's order belongs to the seed and the epoch, not to its threads.

#include "compress/data/loader.h"

#include "compress/data/images.h"
#include "compress/data/random.h"
#include "compress/data/tensors.h"
#include "compress/error.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <set>

namespace compress {
namespace {

// Samples that are their own index; slow in an uneven way, and counted.
class Counting final : public Dataset {
 public:
  explicit Counting(int64_t size, int64_t broken = -1)
      : Dataset(DatasetInfo{"counting", {{}}, 0, {}, true}), size_(size), broken_(broken) {}
  int64_t size() const override { return size_; }
  Batch get(const std::vector<int64_t>& indices, const Draw& draw) const override {
    ++made;
    if (indices[0] % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    for (const int64_t index : indices) {
      if (index == broken_) throw Error(ErrorCode::kBadFile, "broken sample", "sample 17");
    }
    Batch batch;
    batch.indices = indices;
    batch.labels = at::tensor(indices, at::kLong);
    batch.inputs = {batch.labels * 1000 + static_cast<int64_t>(draw.epoch)};
    return batch;
  }
  mutable std::atomic<int> made{0};

 private:
  int64_t size_, broken_;
};

std::vector<std::vector<int64_t>> epoch(Loader& loader) {
  std::vector<std::vector<int64_t>> batches;
  while (auto batch = loader.next()) batches.push_back(batch->indices);
  return batches;
}

TEST(Loader, GivesTheSameBatchesForAnyNumberOfThreads) {
  const auto data = std::make_shared<Counting>(103);
  LoaderOptions options{.batch_size = 8, .shuffle = true, .seed = 5, .threads = 0};
  Loader serial(data, options);
  const auto first = epoch(serial);
  serial.start(1);
  const auto second = epoch(serial);
  EXPECT_NE(first, second);
  for (const int threads : {1, 2, 7}) {
    options.threads = threads;
    Loader loader(data, options);
    EXPECT_EQ(epoch(loader), first) << threads;
    EXPECT_FALSE(loader.next());
    loader.start(1);
    EXPECT_EQ(epoch(loader), second) << threads;
  }
}

TEST(Loader, GivesEverySampleOnceAndTheShortBatchLast) {
  Loader loader(std::make_shared<Counting>(20), {.batch_size = 8, .shuffle = true});
  EXPECT_EQ(loader.batches(), 3);
  std::multiset<int64_t> seen;
  std::vector<int64_t> sizes;
  while (auto batch = loader.next()) {
    sizes.push_back(batch->size());
    seen.insert(batch->indices.begin(), batch->indices.end());
  }
  EXPECT_THAT(sizes, ::testing::ElementsAre(8, 8, 4));
  std::vector<int64_t> all(20);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_THAT(seen, ::testing::ElementsAreArray(all));

  Loader full(std::make_shared<Counting>(20), {.batch_size = 8, .drop_last = true});
  EXPECT_EQ(full.batches(), 2);
  EXPECT_EQ(full.next()->indices[7], 7);
}

TEST(Loader, HandsTheEpochToTheDataSet) {
  Loader loader(std::make_shared<Counting>(8), {.batch_size = 8});
  loader.start(3);
  EXPECT_EQ(loader.next()->inputs[0][2].item<int64_t>(), 2003);
}

TEST(Loader, BringsTheErrorOfAWorkerInItsPlaceAndGoesOn) {
  for (const int threads : {0, 3}) {
    Loader loader(std::make_shared<Counting>(40, 17), {.batch_size = 8, .threads = threads});
    EXPECT_EQ(loader.next()->indices[0], 0);
    EXPECT_EQ(loader.next()->indices[0], 8);
    EXPECT_THROW(loader.next(), Error) << threads;
    EXPECT_EQ(loader.next()->indices[0], 24);
  }
}

TEST(Loader, KeepsOnlyAFewBatchesAhead) {
  const auto data = std::make_shared<Counting>(1000);
  Loader loader(data, {.batch_size = 1, .threads = 2});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(data->made, 4);
  EXPECT_GE(data->made, 1);
}

TEST(Loader, CanBeLeftInTheMiddle) {
  Loader loader(std::make_shared<Counting>(1000), {.batch_size = 1, .threads = 3});
  loader.next();
  loader.start(1);
  EXPECT_EQ(loader.next()->indices[0], 0);
}

TEST(Loader, StartsInTheMiddleOfAnEpoch) {
  ImageOptions options;
  options.transforms.push_back([](Image& image, SampleRandom& random) {
    for (uint8_t& byte : image.bytes) byte = static_cast<uint8_t>(random.below(256));
  });
  const auto data = memory_images(at::zeros({45, 4, 4, 3}, at::kByte), at::arange(45), {}, options);
  for (const int threads : {0, 2}) {
    Loader whole(data, {.batch_size = 8, .shuffle = true, .seed = 5, .threads = threads});
    Loader part(data, {.batch_size = 8, .shuffle = true, .seed = 5, .threads = threads});
    for (int64_t first = 0; first <= whole.batches(); ++first) {
      whole.start(3);
      for (int64_t i = 0; i < first; ++i) whole.next();
      part.start(3, first);
      while (const auto expected = whole.next()) {
        const auto batch = part.next();
        ASSERT_TRUE(batch);
        EXPECT_EQ(batch->indices, expected->indices);
        EXPECT_TRUE(batch->inputs[0].equal(expected->inputs[0]));
        EXPECT_TRUE(batch->labels.equal(expected->labels));
      }
      EXPECT_FALSE(part.next());
    }
    part.start(4);  // the next epoch begins at its beginning again
    whole.start(4);
    EXPECT_EQ(epoch(part), epoch(whole));
  }
}

TEST(Loader, MakesNoBatchThatItSkips) {
  for (const int threads : {0, 2}) {
    const auto data = std::make_shared<Counting>(800);
    Loader loader(data, {.batch_size = 8, .threads = threads});
    loader.start(0, 97);
    EXPECT_EQ(epoch(loader).size(), 3u);
    // The threads of the constructor may have made threads + 2 batches of the beginning.
    EXPECT_LE(data->made, threads == 0 ? 3 : 3 + threads + 2);
  }
}

TEST(Loader, RefusesABatchBeyondTheEpoch) {
  Loader loader(std::make_shared<Counting>(20), {.batch_size = 8});
  loader.next();
  EXPECT_THAT(testing::message_of([&] { loader.start(1, 4); }),
              ::testing::HasSubstr("first_batch: batch 4 of an epoch that has 3"));
  EXPECT_THROW(loader.start(1, -1), Error);
  EXPECT_EQ(loader.next()->indices[0], 8);  // it goes on where it was
}

TEST(Loader, RefusesWhatGivesNoBatch) {
  const auto data = std::make_shared<Counting>(5);
  EXPECT_THROW(Loader(data, {.batch_size = 0}), Error);
  EXPECT_THROW(Loader(data, {.batch_size = 8, .drop_last = true}), Error);
  EXPECT_THROW(Loader(data, {.threads = -1}), Error);
  EXPECT_THROW(Loader(std::make_shared<Counting>(0), {}), Error);
}

TEST(SampleRandom, IsSplitMix64) {
  // The published test vector for the state 1234567 (first outputs of Vigna's splitmix64.c). A
  // single key k starts from state next(0) ^ k, so the key undoes that first step.
  SampleRandom zero{std::initializer_list<uint64_t>{}};
  const uint64_t first = zero.next();
  EXPECT_EQ(first, 0xe220a8397b1dcdafu);
  SampleRandom random({first ^ 1234567u});
  EXPECT_EQ(random.next(), 6457827717110365317u);
  EXPECT_EQ(random.next(), 3203168211198807973u);
}

TEST(SampleRandom, StaysBelowItsBoundAndReachesAll) {
  SampleRandom random({1, 2});
  std::vector<int> counts(7);
  for (int i = 0; i < 7000; ++i) ++counts[random.below(7)];
  // Each count is binomial(7000, 1/7): mean 1000, deviation 29.3; six deviations.
  for (const int count : counts) EXPECT_NEAR(count, 1000, 176);
  for (int i = 0; i < 100; ++i) EXPECT_LT(random.uniform(), 1.0);
}

TEST(SampleRandom, DependsOnTheOrderOfItsKeys) {
  EXPECT_NE(SampleRandom({1, 2}).next(), SampleRandom({2, 1}).next());
  EXPECT_EQ(permutation(50, 1, 2), permutation(50, 1, 2));
  EXPECT_NE(permutation(50, 1, 2), permutation(50, 1, 3));
}

}  // namespace
}  // namespace compress
