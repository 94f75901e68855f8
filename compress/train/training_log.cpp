// Metrics of a run, one JSON object a line.

#include "compress/train/training_log.h"

#include "compress/error.h"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstring>

namespace compress {

namespace fs = std::filesystem;

TrainingLog::TrainingLog(const fs::path& path, int64_t keep_bytes) : path_(path) {
  if (path_.empty()) return;
  std::error_code failed;
  const bool keeps = keep_bytes > 0 && fs::exists(path_, failed) &&
                     static_cast<int64_t>(fs::file_size(path_, failed)) >= keep_bytes;
  if (keeps) {
    fs::resize_file(path_, static_cast<uintmax_t>(keep_bytes), failed);
    bytes_ = keep_bytes;
  }
  file_.open(path_, keeps ? std::ios::app : std::ios::trunc);
  if (!file_ || failed) {
    throw Error(ErrorCode::kIo, failed ? failed.message() : std::strerror(errno), path_.string(),
                "name another file as `log`");
  }
}

void TrainingLog::add(const Json& line) {
  if (path_.empty()) return;
  const std::string text = line.dump() + "\n";
  file_ << text << std::flush;
  if (!file_) throw Error(ErrorCode::kIo, std::strerror(errno), path_.string());
  bytes_ += static_cast<int64_t>(text.size());
}

}  // namespace compress
