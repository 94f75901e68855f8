// Where tests find files: the source tree, the optional shared folder, a scratch folder.

#include "tests/support/paths.h"

#include <stdlib.h>

#include <cstdlib>
#include <stdexcept>

namespace compress::testing {

std::filesystem::path source_dir() { return LATHE_SOURCE_DIR; }

std::filesystem::path shared_file(const std::string& relative) {
  const char* named = std::getenv("LATHE_SHARED");
  const std::filesystem::path root = named ? named : source_dir().parent_path() / "shared";
  const std::filesystem::path file = root / relative;
  return std::filesystem::exists(file) ? file : std::filesystem::path();
}

std::filesystem::path exported_models_dir() {
  if (const char* given = std::getenv("LATHE_INTEROP_MODELS")) return given;
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home == nullptr ? "." : home) / ".cache/lathe/interop-models";
}

ScratchDir::ScratchDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "lathe-test-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
  path_ = pattern;
}

ScratchDir::~ScratchDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace compress::testing
