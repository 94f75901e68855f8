// A teacher's logits on disk, so that it runs once for each variant of a sample.
//
// One file a variant: `<teacher>-<data>.logits` for data without augmentation, whose samples are
// the same in all epochs and under all seeds, else `<teacher>-<data>-<seed>-<epoch>.logits`. A file
// is a header (a line of JSON that says whose logits these are) and a record for each sample: a
// checksum of the row, then the row in float32. Records are written as they come and count only if
// the checksum is right, so whatever a killed run has left is either right or computed again.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace compress {

/// Whose logits, of what.
struct TeacherCacheKey {
  std::string teacher;  ///< digest of the model, and of what else its numbers depend on (autocast)
  std::string data;     ///< the data set and its transforms, in words: what sample i looks like
  uint64_t seed = 0;    ///< of the augmentation
  bool augmented = false;
};

class TeacherCache {
 public:
  /// Makes `folder` if needed. Throws Error(kIo) if that fails.
  TeacherCache(std::filesystem::path folder, TeacherCacheKey key, int64_t samples);
  ~TeacherCache();
  TeacherCache(const TeacherCache&) = delete;
  TeacherCache& operator=(const TeacherCache&) = delete;

  /// The rows of the samples `indices`, float [n, ...] on the CPU; undefined if any is missing.
  /// Throws Error(kBadFile) naming the file if it is cut off, damaged or somebody else's.
  at::Tensor find(const std::vector<int64_t>& indices, uint64_t epoch);

  /// Keeps `rows` [n, ...] of the samples. Throws Error(kIo) naming the file if the disk refuses,
  /// Error(kBadFile) if it has rows of other sizes, Error(kUnsupported) for rows that float32
  /// cannot hold (double, integers).
  void store(const std::vector<int64_t>& indices, uint64_t epoch, const at::Tensor& rows);

  /// The file of a variant.
  std::filesystem::path path(uint64_t epoch) const;

 private:
  class File;
  File* open(uint64_t epoch);

  std::filesystem::path folder_;
  TeacherCacheKey key_;
  int64_t samples_;
  std::unique_ptr<File> file_;  // of the variant last looked at; null if there is none yet
  uint64_t variant_ = 0;
};

}  // namespace compress
