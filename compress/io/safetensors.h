// The safetensors format: u64 header size, JSON header, then the tensors' bytes without holes.
//
// https://github.com/huggingface/safetensors describes it. The format has no aliases; ties (several
// names for one tensor) are written once and noted in the metadata under `kTiesKey`.

#pragma once

#include "compress/io/atomic_file.h"
#include "compress/io/mapped_file.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace compress {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
using Metadata = std::map<std::string, std::string>;

/// Metadata key of the ties: a JSON object from each further name to the name that is stored.
inline constexpr const char* kTiesKey = "lathe.ties";

/// What the header says about one tensor.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  ///< the format's own name: "F32", "BF16", ...
  std::vector<int64_t> sizes;
  uint64_t begin = 0, end = 0;  ///< bytes after the header
};

/// One file, opened for reading: the header is parsed and checked, tensors are views of the
/// mapping.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  /// Throws `kBadFile` unless the header is strict JSON of the right form, without duplicates,
  /// whose tensors fill the rest of the file exactly.
  explicit SafetensorsFile(std::shared_ptr<MappedFile> file);

  const std::shared_ptr<MappedFile>& file() const { return file_; }
  /// In the order of the header.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  /// Without the ties.
  const Metadata& metadata() const { return metadata_; }
  /// (further name, stored name), from the metadata.
  const std::vector<std::pair<std::string, std::string>>& ties() const { return ties_; }
  const SafetensorsEntry* find(std::string_view name) const;

  /// A view of the file (a copy where the file left the tensor misaligned). Throws `kUnsupported`
  /// for types without a LibTorch dtype (4- and 6-bit floats).
  at::Tensor tensor(const SafetensorsEntry& entry) const;
  /// Gives the entry's resident memory back; see `MappedFile::release`.
  void release(const SafetensorsEntry& entry) const;
  /// All tensors by name, ties restored as further names of one tensor.
  NamedTensors tensors() const;

 private:
  void check_layout() const;
  void take_ties();

  std::shared_ptr<MappedFile> file_;
  uint64_t data_offset_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string, size_t> index_;
  Metadata metadata_;
  std::vector<std::pair<std::string, std::string>> ties_;
};

/// The tensors of a sharded model, by its `*.safetensors.index.json`: in the order of the shards.
/// Throws `kBadFile` if the index names a file outside its folder or a tensor that is not there.
NamedTensors load_sharded_safetensors(const std::filesystem::path& index,
                                      Metadata* metadata = nullptr);

/// The files that such an index names, without opening them.
std::vector<std::filesystem::path> safetensors_shards(const std::filesystem::path& index);

/// True if the file begins like safetensors: a plausible header size, then `{`.
bool is_safetensors(const MappedFile& file);

/// Writes tensors one at a time, for models larger than memory.
///
/// Room for the header is reserved before the first tensor and filled in at the end. Tensors follow
/// one another without padding, as the format demands: give those of wider types first to have all
/// of them aligned. Nothing appears under the name before `finish`.
class SafetensorsWriter {
 public:
  /// `header_bytes` is an upper bound for the header, from `header_bound`.
  SafetensorsWriter(const std::filesystem::path& path, uint64_t header_bytes);

  /// An upper bound for the header of tensors with these names, of up to `max_dimensions`, and of
  /// this metadata (ties are reckoned as if every name were one).
  static uint64_t header_bound(const std::vector<std::string>& names, size_t max_dimensions,
                               const Metadata& metadata = {});

  /// Appends a tensor of any device and strides. Throws `kInvalidArgument` for a name that is
  /// taken, `kUnsupported` for a dtype that the format lacks.
  void add(const std::string& name, const at::Tensor& tensor);
  /// The same in pieces: `like` says dtype and sizes, and the elements follow in row-major order.
  void begin(const std::string& name, const at::Tensor& like);
  void append(const at::Tensor& piece);
  void append(std::span<const std::byte> piece);
  /// Notes a further name for a tensor that was added.
  void add_tie(const std::string& alias, const std::string& name);
  void set_metadata(const std::string& key, const std::string& value);
  /// Lists the tensors in this order in the header; without it, in the order of their bytes. Names
  /// that were not added are passed over.
  void list_in_order(const std::vector<std::string>& names);
  /// Bytes of tensors added so far.
  uint64_t data_bytes() const { return data_bytes_ - missing_; }

  /// Writes the header and makes the file appear. Throws `kInvalidArgument` if the header does not
  /// fit into its room.
  void finish();
  /// The same in two steps, for several files that should appear together.
  void prepare();
  void publish() { file_.commit(); }

 private:
  void require_complete() const;

  AtomicFile file_;
  uint64_t header_bytes_;
  uint64_t data_bytes_ = 0;
  uint64_t missing_ = 0;  // bytes of the tensor that was begun last
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string, bool> names_;
  std::map<std::string, std::string> ties_;
  Metadata metadata_;
};

/// Writes one file. Same tensors, names, order and metadata: the same bytes. Names of one tensor
/// (ties) are stored once.
void save_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                      const Metadata& metadata = {});

/// Writes `<stem>-00001-of-0000N.safetensors` with at most `max_shard_bytes` of tensors each (one
/// larger tensor has a shard of its own), and `<stem>.safetensors.index.json`, where `path` is
/// `<folder>/<stem>.safetensors`. All shards are on disk before the first appears, the index comes
/// last. Writes the single file `path` if all fits into one. Returns the file to load it by.
std::filesystem::path save_sharded_safetensors(const std::filesystem::path& path,
                                               const NamedTensors& tensors,
                                               uint64_t max_shard_bytes,
                                               const Metadata& metadata = {});

}  // namespace compress
