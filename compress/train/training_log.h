// Metrics of a run, one JSON object a line.

#pragma once

#include "compress/json.h"

#include <cstdint>
#include <filesystem>
#include <fstream>

namespace compress {

class TrainingLog {
 public:
  /// An empty path logs nothing. Cuts a log that is there after `keep_bytes`: 0 begins anew, a run
  /// that goes on keeps what it had written when its checkpoint was made. Throws Error(kIo).
  explicit TrainingLog(const std::filesystem::path& path, int64_t keep_bytes = 0);

  /// Appends a line and hands it to the system. Throws Error(kIo).
  void add(const Json& line);
  int64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  std::ofstream file_;
  int64_t bytes_ = 0;
};

}  // namespace compress
