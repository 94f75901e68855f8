// Zip archives as PyTorch uses them: a distrustful reader over mapped memory, a deterministic
// writer.

#pragma once

#include "compress/io/atomic_file.h"
#include "compress/io/mapped_file.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace compress {

/// One file inside an archive.
struct ZipEntry {
  std::string name;
  uint64_t size = 0;         ///< bytes of its contents
  uint64_t stored_size = 0;  ///< bytes in the archive; equal to `size` unless deflated
  uint64_t data_offset = 0;  ///< where those begin in the archive
  uint32_t crc32 = 0;
  bool deflated = false;
};

/// An archive opened for reading (zip64 included).
///
/// Opening checks everything that the directory claims: entries inside the file, no overlaps, no
/// duplicate, absolute or `..` names, local headers that agree, deflated sizes within reach of
/// their input. Violations throw `kBadFile`; encryption and other methods than store and deflate
/// throw `kUnsupported`.
class ZipReader {
 public:
  static ZipReader open(const std::filesystem::path& path);
  explicit ZipReader(std::shared_ptr<MappedFile> file);
  ZipReader(ZipReader&&) = default;
  ZipReader& operator=(ZipReader&&) = default;

  const std::shared_ptr<MappedFile>& file() const { return file_; }
  /// In the order of the archive's directory; folders are left out.
  const std::vector<ZipEntry>& entries() const { return entries_; }
  /// Null if there is none of this name.
  const ZipEntry* find(std::string_view name) const;
  /// Throws `kBadFile` if there is none of this name.
  const ZipEntry& at(std::string_view name) const;

  /// "model.pth: data/0", the place to name in errors about an entry.
  std::string where(const ZipEntry& entry) const { return file_->name() + ": " + entry.name; }
  /// The contents of a stored entry, in place and unverified. Throws `kUnsupported` if deflated.
  std::span<const std::byte> bytes(const ZipEntry& entry) const;
  /// A copy of the contents, inflated if need be. Throws `kBadFile` if the checksum disagrees.
  std::string read(const ZipEntry& entry) const;
  /// Reads the whole entry and compares the checksum; throws `kBadFile` if it disagrees.
  void verify(const ZipEntry& entry) const;

  /// The contents as a storage: in place where stored and aligned, else a copy.
  at::Storage storage(const ZipEntry& entry, size_t alignment = 16) const;
  /// A tensor over the contents, contiguous unless `strides` are given; `storage_offset` in
  /// elements.
  at::Tensor tensor(const ZipEntry& entry, at::ScalarType dtype, at::IntArrayRef sizes,
                    at::OptionalIntArrayRef strides = std::nullopt,
                    int64_t storage_offset = 0) const;

 private:
  void add_entry(ZipEntry entry, uint64_t local_header, uint64_t directory_offset);

  std::shared_ptr<MappedFile> file_;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string_view, size_t> index_;  // views into entries_, which is then fixed
};

/// Writes an archive whose stored entries begin at multiples of 64 bytes, with fixed
/// timestamps: the same calls give the same bytes. Nothing appears under the name before `finish`.
class ZipWriter {
 public:
  explicit ZipWriter(const std::filesystem::path& path);

  /// Throws `kInvalidArgument` for a name that is empty, taken, absolute or has `..`.
  void add(const std::string& name, std::span<const std::byte> contents);
  void add(const std::string& name, std::string_view text) {
    add(name, std::as_bytes(std::span(text)));
  }
  /// Adds text deflated, which PyTorch's reader inflates; stored where that is not smaller. Below
  /// 4 GiB.
  void add_deflated(const std::string& name, std::string_view text);
  /// Writes the directory and makes the file appear.
  void finish();

 private:
  struct Record {
    std::string name;
    uint16_t method;
    uint64_t stored_size, size, header_offset;
    uint32_t crc32;
  };
  void add_entry(const std::string& name, std::span<const std::byte> stored, uint16_t method,
                 uint64_t size, uint32_t checksum);
  AtomicFile file_;
  std::vector<Record> records_;
  std::unordered_set<std::string> names_;
};

/// CRC-32 as zip files have it, in parallel for large inputs.
uint32_t zip_crc32(std::span<const std::byte> bytes);

/// Why `name` may not name an entry (empty if it may): archives are no way out of a folder.
std::string zip_name_problem(std::string_view name);

}  // namespace compress
