// A teacher's logits on disk: kept exactly, and refused or computed again if not what they were.

#include "compress/train/teacher_cache.h"

#include "compress/error.h"
#include "tests/support/errors.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <sstream>

namespace compress {
namespace {

using ::testing::HasSubstr;
using testing::ScratchDir;

const TeacherCacheKey kPlain{"0123abcd", "cifar10:train", 1, false};
const TeacherCacheKey kAugmented{"0123abcd", "cifar10:train", 1, true};

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

at::Tensor logits(int64_t count) {
  at::manual_seed(1);
  return at::randn({count, 5});
}

TEST(TeacherCache, GivesBackTheBitsThatItGot) {
  const ScratchDir scratch;
  const at::Tensor rows = logits(4);
  rows[1][2].fill_(NAN);
  rows[1][3].fill_(-0.0f);
  {
    TeacherCache cache(scratch / "new/folder", kPlain, 6);
    EXPECT_FALSE(cache.find({0}, 0).defined());
    cache.store({5, 0, 3, 1}, 0, rows);
    EXPECT_FALSE(cache.find({0, 2}, 0).defined());  // 2 is missing
  }
  TeacherCache again(scratch / "new/folder", kPlain, 6);
  const at::Tensor found = again.find({1, 5, 0, 3}, 9);  // one variant for all epochs
  ASSERT_TRUE(found.defined());
  const at::Tensor expected = rows.index_select(0, at::tensor({3, 0, 1, 2}, at::kLong));
  EXPECT_TRUE(found.view(at::kInt).equal(expected.view(at::kInt)));
}

TEST(TeacherCache, KeepsRowsOfAnyShapeAndHalfPrecisionAsFloat) {
  const ScratchDir scratch;
  TeacherCache cache(scratch.path(), kPlain, 2);
  const at::Tensor rows = logits(6).view({2, 3, 5}).to(at::kBFloat16);
  cache.store({0, 1}, 0, rows);
  EXPECT_TRUE(cache.find({0, 1}, 0).equal(rows.to(at::kFloat)));
  EXPECT_THAT(testing::message_of([&] { cache.store({0}, 0, logits(1)); }),
              HasSubstr("has rows of [3, 5], the teacher gives [5]"));
  EXPECT_THAT(
      testing::message_of([&] { cache.store({0}, 0, rows.slice(0, 0, 1).to(at::kDouble)); }),
      HasSubstr("a cache keeps float32, the teacher gives Double"));
}

TEST(TeacherCache, TellsVariantsApart) {
  const ScratchDir scratch;
  TeacherCache cache(scratch.path(), kAugmented, 6);
  const at::Tensor rows = logits(4);
  cache.store({0, 1}, 0, rows.slice(0, 0, 2));
  EXPECT_FALSE(cache.find({0, 1}, 1).defined());
  cache.store({0, 1}, 1, rows.slice(0, 2, 4));
  EXPECT_TRUE(cache.find({0, 1}, 0).equal(rows.slice(0, 0, 2)));
  EXPECT_TRUE(cache.find({0, 1}, 1).equal(rows.slice(0, 2, 4)));
  TeacherCacheKey other = kAugmented;
  other.seed = 2;
  EXPECT_FALSE(TeacherCache(scratch.path(), other, 6).find({0, 1}, 0).defined());
}

TEST(TeacherCache, NamesFilesAfterTeacherDataSeedAndEpoch) {
  const ScratchDir scratch;
  const auto name = [&](const TeacherCacheKey& key, uint64_t epoch) {
    return TeacherCache(scratch.path(), key, 6).path(epoch).filename().string();
  };
  EXPECT_EQ(name({"ab", "train.pt"}, 3), "ab-train.pt.logits");
  EXPECT_EQ(name({"ab", "train.pt", 7, true}, 3), "ab-train.pt-7-3.logits");
  const std::string odd = name({"ab", "../cifar10:train", 7, false}, 0);
  EXPECT_THAT(odd, HasSubstr("ab-.._cifar10_train_"));  // and a digest of what could not stay
  EXPECT_NE(odd, name({"ab", "../cifar10/train", 7, false}, 0));
}

TEST(TeacherCache, RefusesAFileThatIsCutOffOrNotItsOwn) {
  const ScratchDir scratch;
  const auto path = TeacherCache(scratch.path(), kPlain, 6).path(0);
  TeacherCache(scratch.path(), kPlain, 6).store({0, 1, 2, 3}, 0, logits(4));
  const std::string good = contents(path);
  const auto find = [&](const TeacherCacheKey& key, int64_t samples) {
    return testing::message_of([&] { TeacherCache(scratch.path(), key, samples).find({0}, 0); });
  };
  EXPECT_EQ(find(kPlain, 6), "nothing was thrown");
  EXPECT_THAT(find(kPlain, 7), HasSubstr("belongs to another run: `samples` is 6, not 7"));

  for (const size_t length : {size_t{0}, size_t{7}, size_t{4095}, size_t{4097}, good.size() - 1}) {
    write(path, good.substr(0, length));
    EXPECT_THAT(find(kPlain, 6), HasSubstr(path.string())) << length;
  }
  write(path, good + "x");
  EXPECT_THAT(find(kPlain, 6), HasSubstr("bytes long"));
  write(path, std::string(8192, 'x'));
  EXPECT_THAT(find(kPlain, 6), HasSubstr("no file of a teacher's logits"));

  // A byte of the header changed: another teacher, rows of other sizes, no JSON.
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    bytes.replace(bytes.find(from), from.size(), to);
    write(path, bytes);
    return find(kPlain, 6);
  };
  EXPECT_THAT(changed("0123abcd", "0123abce"), HasSubstr("belongs to another run: `teacher`"));
  EXPECT_THAT(changed("[5]", "[9]"), HasSubstr("bytes long"));
  EXPECT_THAT(changed("[5]", "[0]"), HasSubstr("impossible sizes"));
  EXPECT_THAT(changed("[5]}", "[5]?"), HasSubstr(path.string()));
  EXPECT_THAT(changed("teacher logits 1", "teacher logits 2"), HasSubstr("no file of a teacher"));
  write(path, good);
  EXPECT_EQ(find(kPlain, 6), "nothing was thrown");
}

TEST(TeacherCache, ComputesAgainWhatWasHalfWrittenOrDamaged) {
  const ScratchDir scratch;
  const auto path = TeacherCache(scratch.path(), kPlain, 6).path(0);
  const at::Tensor rows = logits(6);
  const std::vector<int64_t> all = {0, 1, 2, 3, 4, 5};
  TeacherCache(scratch.path(), kPlain, 6).store(all, 0, rows);
  const std::string good = contents(path);
  constexpr size_t kHeader = 4096,
                   kRecord = 32;  // 8 for the checksum, 20 for the row, 4 of padding
  ASSERT_EQ(good.size(), kHeader + 5 * kRecord + kRecord);

  // Every single bit of a record matters, but for the padding.
  for (size_t bit = 0; bit < 28 * 8; ++bit) {
    std::string bytes = good;
    bytes[kHeader + 2 * kRecord + bit / 8] ^= static_cast<char>(1 << bit % 8);
    write(path, bytes);
    TeacherCache cache(scratch.path(), kPlain, 6);
    ASSERT_FALSE(cache.find({2}, 0).defined()) << "bit " << bit;
    ASSERT_TRUE(cache.find({0, 1, 3, 4, 5}, 0).defined());
  }
  // A record in another's place.
  std::string swapped = good;
  swapped.replace(kHeader, kRecord, good.substr(kHeader + kRecord, kRecord));
  write(path, swapped);
  EXPECT_FALSE(TeacherCache(scratch.path(), kPlain, 6).find({0}, 0).defined());

  // Killed after the header, and in the middle of a row.
  write(path, good.substr(0, kHeader));
  TeacherCache(scratch.path(), kPlain, 6).store({1}, 0, rows.slice(0, 1, 2));
  EXPECT_FALSE(TeacherCache(scratch.path(), kPlain, 6).find({0}, 0).defined());
  EXPECT_TRUE(TeacherCache(scratch.path(), kPlain, 6).find({1}, 0).equal(rows.slice(0, 1, 2)));
  std::string half = good;
  std::fill(half.begin() + kHeader + 3 * kRecord + 12, half.end(), '\0');
  write(path, half);
  TeacherCache cache(scratch.path(), kPlain, 6);
  EXPECT_TRUE(cache.find({0, 1, 2}, 0).defined());
  EXPECT_FALSE(cache.find({3}, 0).defined());
  cache.store(all, 0, rows);
  EXPECT_TRUE(cache.find(all, 0).equal(rows));
}

}  // namespace
}  // namespace compress
