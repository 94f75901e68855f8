// Files that appear whole or not at all: written aside, synced, renamed.

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace compress {

/// A file under construction. Bytes go to a temporary file in the target's folder; `commit` syncs
/// it and renames it over the target. Until then, and whenever something fails, the old target
/// stays as it was and the temporary file is removed. All errors are `kIo` and name the target.
///
/// A target that exists and is no regular file (/dev/stdout, a pipe) is written directly.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& target);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  /// Appends; small pieces are gathered into larger writes.
  void append(std::span<const std::byte> bytes);
  void append(std::string_view text) { append(std::as_bytes(std::span(text))); }
  /// Appends zeros up to the next multiple of `alignment`.
  void pad_to(uint64_t alignment);
  /// Overwrites bytes appended before (a header whose contents are known only at the end).
  void write_at(uint64_t offset, std::string_view text);
  /// Bytes appended so far.
  uint64_t size() const { return size_; }

  /// Writes everything out and syncs it, so that `commit` has only the rename left to fail.
  void sync();
  /// Makes the file appear under its name.
  void commit();

 private:
  void flush();
  void begin_writeback() noexcept;
  void write_all(const std::byte* data, size_t size, uint64_t offset);
  void discard() noexcept;

  std::filesystem::path target_;
  std::string aside_;  // empty when the target is written directly
  std::string buffer_;
  uint64_t size_ = 0;
  uint64_t on_its_way_ = 0;  // bytes that the disk was asked to take
  int fd_ = -1;
};

/// Writes `text` as the whole contents of `target`, atomically.
void write_file(const std::filesystem::path& target, std::string_view text);

}  // namespace compress
