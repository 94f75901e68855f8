// Atomic files: whole or not at all, and every way to fail has its own words.

#include "compress/io/atomic_file.h"

#include "tests/io/files.h"
#include "tests/support/paths.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;

TEST(AtomicFile, AppearsOnlyAtCommit) {
  const ScratchDir scratch;
  AtomicFile file(scratch / "out");
  file.append("header--");
  file.append(std::string(1 << 20, 'x'));
  file.append("end");
  file.write_at(0, "HEADER");
  EXPECT_FALSE(std::filesystem::exists(scratch / "out"));
  file.commit();
  EXPECT_EQ(read_all(scratch / "out"), "HEADER--" + std::string(1 << 20, 'x') + "end");
  EXPECT_EQ(files_in(scratch.path()), 1u);
}

TEST(AtomicFile, LeavesTheOldFileWhenGivenUp) {
  const ScratchDir scratch;
  write_all(scratch / "out", "old");
  { AtomicFile(scratch / "out").append("new"); }
  EXPECT_EQ(read_all(scratch / "out"), "old");
  EXPECT_EQ(files_in(scratch.path()), 1u);
}

TEST(AtomicFile, KeepsThePermissionsOfTheFileThatItReplacesAndFollowsLinks) {
  const ScratchDir scratch;
  write_all(scratch / "real", "old");
  chmod((scratch / "real").c_str(), 0640);
  std::filesystem::create_symlink("real", scratch / "link");
  write_file(scratch / "link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(scratch / "link"));
  EXPECT_EQ(read_all(scratch / "real"), "new");
  struct stat status {};
  ASSERT_EQ(stat((scratch / "real").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
}

TEST(AtomicFile, AFullDiskIsAnErrorOfItsOwn) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const Error error = error_of([&] { write_file("/dev/full", "x"); });
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_EQ(error.message(), "no space left to write it");
}

// The file size limit stands in for a disk that fills up half-way through a regular file.
TEST(AtomicFile, AWriteThatFailsHalfWayLeavesTheOldFileAndNothingElse) {
  const ScratchDir scratch;
  write_all(scratch / "out", "old");
  rlimit saved{};
  getrlimit(RLIMIT_FSIZE, &saved);
  rlimit small = saved;
  small.rlim_cur = 1 << 20;
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const Error error = error_of([&] { write_file(scratch / "out", std::string(3 << 20, 'x')); });
  setrlimit(RLIMIT_FSIZE, &saved);
  std::signal(SIGXFSZ, previous);
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_EQ(error.message(), "grows beyond the largest file that is allowed here");
  EXPECT_EQ(read_all(scratch / "out"), "old");
  EXPECT_EQ(files_in(scratch.path()), 1u);
}

TEST(AtomicFile, NamesWhatIsWrongWithATarget) {
  const ScratchDir scratch;
  write_all(scratch / "file", "x");
  const auto message = [&](const std::filesystem::path& path) {
    const Error error = error_of([&] { write_file(path, "x"); });
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    return error.message();
  };
  EXPECT_EQ(message(scratch.path()), "is a folder");
  EXPECT_EQ(message(scratch.path() / ""), "is a folder");
  EXPECT_THAT(message(scratch / "no/out"), HasSubstr("there is no folder `"));
  EXPECT_THAT(message(scratch / "file/out"), HasSubstr("there is no folder `"));
  EXPECT_EQ(files_in(scratch.path()), 1u);
}

TEST(AtomicFile, SaysThatAFolderMayNotBeWrittenTo) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become someone else and back";
  const ScratchDir scratch;
  chmod(scratch.path().c_str(), 0755);
  ASSERT_EQ(seteuid(65534), 0);
  const Error error = error_of([&] { write_file(scratch / "out", "x"); });
  ASSERT_EQ(seteuid(0), 0);
  EXPECT_THAT(error.message(), HasSubstr("may not be written to"));
}

TEST(AtomicFile, RefusesToGoBackInAPipe) {
  AtomicFile file("/dev/null");
  file.append("header");
  EXPECT_THAT(error_of([&] { file.write_at(0, "HEADER"); }).message(), HasSubstr("a pipe"));
}

}  // namespace
}  // namespace compress::testing
