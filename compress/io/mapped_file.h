// A file seen as memory: weights are used where they lie in the page cache, never read up front.

#pragma once

#include "compress/error.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace compress {

/// The bytes of one file (or of memory that stands for a file), shared by all that look into it.
///
/// The mapping is private and copy-on-write: tensors over it may be written to, the file never
/// changes. A file that another process truncates while it is mapped kills the reader (SIGBUS), as
/// with every mapping; replacing it by rename, as Lathe writes, is safe.
class MappedFile : public std::enable_shared_from_this<MappedFile> {
 public:
  /// Maps `path`. Throws `kIo` if it is missing, a folder, unreadable or empty.
  static std::shared_ptr<MappedFile> open(const std::filesystem::path& path);
  /// The same interface over bytes in memory (tests, fuzzers, embedded models).
  static std::shared_ptr<MappedFile> from_bytes(std::string bytes, std::string name = "memory");

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  /// The path as it was given; error messages begin with it.
  const std::string& name() const { return name_; }
  /// An error of kind kBadFile about this file.
  Error damaged(std::string message) const;
  uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  /// A range of the file. Throws `kBadFile` if it is not inside.
  std::span<const std::byte> bytes(uint64_t offset, uint64_t size) const;
  /// The same range as text.
  std::string_view text(uint64_t offset, uint64_t size) const;

  /// A range of the file as a storage that keeps the mapping alive. Where `offset` is not a
  /// multiple of `alignment` (bytes), the range is copied instead. Throws `kBadFile` if it is not
  /// inside.
  at::Storage storage(uint64_t offset, uint64_t size, size_t alignment = 16);
  /// A contiguous tensor over the file at `offset`: no copy where the offset is aligned for
  /// `dtype`.
  at::Tensor tensor(uint64_t offset, at::ScalarType dtype, at::IntArrayRef sizes);

  /// Gives the resident pages that lie wholly inside the range back to the system, for readers that
  /// stream. The next look reads them from the file again: what was written into tensors over this
  /// range is lost.
  void release(uint64_t offset, uint64_t size);
  void release() { release(0, size_); }

 private:
  MappedFile() = default;
  std::string name_;
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
  std::string memory_;  // owns the bytes when there is no mapping
  bool mapped_ = false;
};

/// Gives back the resident pages under a contiguous tensor that is a view of a mapped file and was
/// not written to; does nothing and returns false for any other tensor.
bool release_pages(const at::Tensor& tensor);

}  // namespace compress
