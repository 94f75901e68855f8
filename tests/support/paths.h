// Where tests find files: the source tree, the optional shared folder, a scratch folder.

#pragma once

#include <filesystem>
#include <string>

namespace compress::testing {

/// The root of the source tree.
std::filesystem::path source_dir();

/// A file of the optional folder of third-party test files beside the source tree (or of the folder
/// that LATHE_SHARED names); empty if it is absent. Tests on such files skip when this is empty:
///   `const auto file = shared_file("checkpoints/x.th"); if (file.empty()) GTEST_SKIP() << ...`
std::filesystem::path shared_file(const std::string& relative);

/// The folder that tests/interop/run exports networks to: that of LATHE_INTEROP_MODELS, or one in
/// the user's cache. It may be absent.
std::filesystem::path exported_models_dir();

/// A fresh empty folder, removed with everything in it when the object dies.
class ScratchDir {
 public:
  ScratchDir();
  ~ScratchDir();
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace compress::testing
