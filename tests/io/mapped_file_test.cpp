// Mapped files: errors by name, views that outlive the mapping's handle, memory given back.

#include "compress/io/mapped_file.h"

#include "tests/io/files.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;

TEST(MappedFile, NamesWhatIsWrongWithAPath) {
  const ScratchDir scratch;
  write_all(scratch / "empty", "");
  mkfifo((scratch / "pipe").c_str(), 0600);
  const auto message = [&](const std::filesystem::path& path) {
    const Error error = error_of([&] { MappedFile::open(path); });
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_EQ(error.where(), path.string());
    return error.message();
  };
  EXPECT_EQ(message(scratch / "missing"), "no such file");
  EXPECT_EQ(message(scratch / "empty/inside"), "no such file");
  EXPECT_EQ(message(scratch.path()), "is a folder, not a file");
  EXPECT_EQ(message(scratch / "empty"), "is empty (0 bytes)");
  EXPECT_EQ(message(scratch / "pipe"), "is a device or a pipe, not a file");
}

TEST(MappedFile, SaysThatAFileMayNotBeRead) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to lay a file out of its own reach and back";
  const ScratchDir scratch;
  write_all(scratch / "secret", "x");
  chmod((scratch / "secret").c_str(), 0600);
  chmod(scratch.path().c_str(), 0755);
  ASSERT_EQ(seteuid(65534), 0);
  const Error error = error_of([&] { MappedFile::open(scratch / "secret"); });
  ASSERT_EQ(seteuid(0), 0);
  EXPECT_EQ(error.message(), "may not be read");
}

TEST(MappedFile, TensorsKeepTheMappingAliveAndNeverChangeTheFile) {
  const ScratchDir scratch;
  const std::vector<float> numbers = {1, 2, 3, 4};
  const std::string bytes(reinterpret_cast<const char*>(numbers.data()), 16);
  write_all(scratch / "w", bytes);
  at::Tensor tensor = MappedFile::open(scratch / "w")->tensor(4, at::kFloat, {3});
  EXPECT_TRUE(at::equal(tensor, at::tensor({2.0f, 3.0f, 4.0f})));
  tensor.mul_(2);
  EXPECT_TRUE(at::equal(tensor, at::tensor({4.0f, 6.0f, 8.0f})));
  EXPECT_EQ(read_all(scratch / "w"), bytes);
}

TEST(MappedFile, CopiesOnlyWhereTheDataAreMisaligned) {
  auto file = MappedFile::from_bytes(std::string(64, '\1'));
  const auto* begin = reinterpret_cast<const char*>(file->bytes().data());
  ASSERT_EQ(reinterpret_cast<uintptr_t>(begin) % 8, 0u);
  EXPECT_EQ(file->tensor(8, at::kDouble, {2}).const_data_ptr(), begin + 8);
  EXPECT_EQ(file->tensor(2, at::kHalf, {2}).const_data_ptr(), begin + 2);
  const at::Tensor copy = file->tensor(9, at::kInt, {2});
  EXPECT_NE(copy.const_data_ptr(), begin + 9);
  EXPECT_EQ(copy[1].item<int>(), 0x01010101);
}

TEST(MappedFile, RefusesRangesOutsideOfTheFile) {
  auto file = MappedFile::from_bytes(std::string(16, 'x'));
  for (const auto& [offset, size] : std::vector<std::pair<uint64_t, uint64_t>>{
           {17, 0}, {0, 17}, {16, 1}, {1, UINT64_MAX}, {UINT64_MAX, 1}}) {
    EXPECT_EQ(error_of([&] { file->bytes(offset, size); }).code(), ErrorCode::kBadFile);
  }
  EXPECT_EQ(error_of([&] { file->tensor(0, at::kFloat, {5}); }).code(), ErrorCode::kBadFile);
  EXPECT_EQ(error_of([&] {
              file->tensor(0, at::kFloat, {int64_t{1} << 62, 4});
            }).code(),
            ErrorCode::kBadFile);
}

// Resident memory that is backed by files, in bytes (RssFile; anonymous memory is not in it).
size_t resident_file_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssFile:")) return std::stoul(line.substr(8)) * 1024;
  }
  return 0;
}

TEST(MappedFile, ReleaseGivesResidentMemoryBack) {
  const ScratchDir scratch;
  constexpr size_t kSize = size_t{64} << 20;
  write_all(scratch / "w", std::string(kSize, '\1'));
  auto file = MappedFile::open(scratch / "w");
  const at::Tensor tensor = file->tensor(0, at::kByte, {static_cast<int64_t>(kSize)});
  ASSERT_EQ(tensor.sum().item<int64_t>(), static_cast<int64_t>(kSize));
  const size_t before = resident_file_bytes();
  file->release();
  const size_t after = resident_file_bytes();
  EXPECT_GT(before, after + kSize / 2);
  EXPECT_EQ(tensor[123].item<int>(), 1);
}

}  // namespace
}  // namespace compress::testing
