// Whatever is wrong with a file has its own message, and nothing half-written stays.

#include "compress/files.h"
#include "compress/io/safetensors.h"
#include "tests/io/files.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

namespace compress::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string load_error(const std::filesystem::path& path) {
  return error_of([&] { load_model(path.string()); }).what();
}

constexpr const char* kLarge = R"(
input x : f32[2,512]
parameter w : f32[512,512]
y = aten::linear(x, w)
return y = y
)";

std::string save_error(const std::filesystem::path& path) {
  return error_of([&] { save_model(parse_filled(kLarge), path); }).what();
}

TEST(LoadModel, SaysWhatIsWrongWithAFile) {
  const ScratchDir folder;
  const auto file = [&](const char* name, const std::string& bytes) {
    write_all(folder / name, bytes);
    return load_error(folder / name);
  };
  EXPECT_THAT(load_error(folder / "absent.pt2"), HasSubstr("no such file"));
  EXPECT_THAT(load_error(folder.path()), HasSubstr("is a folder, not a file"));
  EXPECT_THAT(file("empty.pt2", ""), HasSubstr("is empty"));
  EXPECT_THAT(file("lfs.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
              AllOf(HasSubstr("Git LFS pointer"), HasSubstr("git lfs pull")));
  EXPECT_THAT(file("page.pth", "<!DOCTYPE html><html><body>404</body></html>"),
              HasSubstr("is a web page"));
  EXPECT_THAT(file("noise.pt2", std::string(64, '\0')), HasSubstr("zeros only"));
}

TEST(LoadModel, SaysWhichFileOfAFolderToTake) {
  const ScratchDir folder;
  save_model(parse_filled("w : f32[2,2]"), folder / "model.safetensors");
  EXPECT_THAT(load_error(folder.path()), HasSubstr("model.safetensors`?"));
}

TEST(LoadModel, RefusesATruncatedFileAndNamesIt) {
  const ScratchDir folder;
  for (const char* name : {"m.safetensors", "m.pt2"}) {
    save_model(parse_filled("input x : f32[2,64]\nparameter w : f32[64,64]\n"
                            "y = aten::linear(x, w)\nreturn y = y"),
               folder / name);
    const std::string bytes = read_all(folder / name);
    for (const size_t size : {bytes.size() - 1, bytes.size() / 2, size_t{100}, size_t{9}}) {
      write_all(folder / "cut", bytes.substr(0, size));
      EXPECT_THAT(load_error(folder / "cut"), HasSubstr((folder / "cut").string())) << name << size;
    }
  }
}

TEST(LoadModel, TellsAFormatByItsContentNotItsName) {
  const ScratchDir folder;
  save_model(parse_filled("w : f32[2,2]"), folder / "m.safetensors");
  std::filesystem::rename(folder / "m.safetensors", folder / "m.pt2");
  EXPECT_EQ(load_model((folder / "m.pt2").string()).tensors().size(), 1u);
}

TEST(LoadModel, RefusesAnEmptyStandardInput) {
  const int kept = dup(STDIN_FILENO);
  ASSERT_NE(freopen("/dev/null", "r", stdin), nullptr);
  EXPECT_THAT(load_error("-"), AllOf(HasSubstr("standard input"), HasSubstr("is empty")));
  dup2(kept, STDIN_FILENO);
  close(kept);
}

TEST(SaveModel, SaysWhyAFileCannotBeWritten) {
  const ScratchDir folder;
  EXPECT_THAT(save_error(folder / "m.tflite"), HasSubstr("no extension of a format"));
  EXPECT_THAT(save_error(folder / "m"), HasSubstr("write .pt2, .safetensors"));
  EXPECT_THAT(save_error(folder / "absent/m.pt2"), HasSubstr("no such folder"));
  std::filesystem::create_directory(folder / "m.safetensors");
  EXPECT_THAT(save_error(folder / "m.safetensors"), HasSubstr("is a folder"));
}

TEST(SaveModel, RefusesAFolderThatCannotBeWrittenTo) {
  if (geteuid() == 0) GTEST_SKIP() << "nothing is unwritable for the superuser";
  const ScratchDir folder;
  std::filesystem::permissions(
      folder.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  EXPECT_THAT(save_error(folder / "m.pt2"), HasSubstr("cannot be written to"));
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
}

TEST(SaveModel, LeavesTheOldFileWhenTheDiskIsFull) {
  const ScratchDir folder;
  if (mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=256k") != 0)
    GTEST_SKIP() << "a small file system cannot be mounted here";
  for (const char* name : {"m.safetensors", "m.pt2"}) {
    write_all(folder / name, "old");
    EXPECT_THAT(save_error(folder / name), HasSubstr("no space left"));
    EXPECT_EQ(read_all(folder / name), "old");
    std::filesystem::remove(folder / name);
    EXPECT_EQ(files_in(folder.path()), 0u);
  }
  umount(folder.path().c_str());
}

TEST(SaveModel, SaysThatAFileGrowsBeyondTheLimit) {
  const ScratchDir folder;
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = 100 * 1024;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = save_error(folder / "m.safetensors");
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("ulimit -f"));
  EXPECT_EQ(files_in(folder.path()), 0u);
}

}  // namespace
}  // namespace compress::testing
