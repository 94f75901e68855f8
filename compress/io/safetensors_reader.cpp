// Reads safetensors files, single and sharded.

#include "compress/error.h"
#include "compress/io/file_json.h"
#include "compress/io/little_endian.h"
#include "compress/io/safetensors.h"
#include "compress/io/safetensors_dtype.h"
#include "compress/io/safetensors_header.h"
#include "compress/io/tensor_view.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace compress {
namespace {

// The format's own limit.
constexpr uint64_t kMaxHeader = 100'000'000;

// Bytes that the sizes and dtype demand; throws if the format has no such dtype.
uint64_t entry_bytes(const SafetensorsEntry& entry, const std::string& where) {
  const detail::SafetensorsDtype* dtype = detail::safetensors_dtype(entry.dtype);
  if (dtype == nullptr) {
    throw Error(ErrorCode::kBadFile, fmt::format("unknown dtype `{}`", entry.dtype), where,
                fmt::format("the format has {}", detail::safetensors_dtype_names()));
  }
  // Checks sizes and their product; one byte an element, so the count is exact.
  const TensorView count{at::kByte, entry.sizes, contiguous_strides(entry.sizes, where), 0};
  const uint64_t numel = required_bytes(count, where);
  const uint64_t bits = numel * static_cast<uint64_t>(dtype->bits);
  if (numel > (uint64_t{1} << 57) || bits % 8 != 0) {
    throw Error(ErrorCode::kBadFile, fmt::format("{} elements of {} bits", numel, dtype->bits),
                where);
  }
  return bits / 8;
}

}  // namespace

bool is_safetensors(const MappedFile& file) {
  if (file.size() < 10) return false;
  const auto size = load_le<uint64_t>(file.bytes(0, 8).data());
  return size >= 2 && size <= kMaxHeader && file.text(8, 1) == "{";
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  return SafetensorsFile(MappedFile::open(path));
}

SafetensorsFile::SafetensorsFile(std::shared_ptr<MappedFile> file) : file_(std::move(file)) {
  if (file_->size() < 10) throw file_->damaged("too short for a safetensors file");
  const auto size = load_le<uint64_t>(file_->bytes(0, 8).data());
  if (size > kMaxHeader || size > file_->size() - 8) {
    throw file_->damaged(
        fmt::format("claims a header of {} bytes in a file of {}", size, file_->size()));
  }
  data_offset_ = 8 + size;
  detail::SafetensorsHeader header =
      detail::parse_safetensors_header(file_->text(8, size), file_->name());
  file_->release(0, data_offset_);
  entries_ = std::move(header.entries);
  metadata_ = std::move(header.metadata);
  check_layout();
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
  take_ties();
}

void SafetensorsFile::check_layout() const {
  std::vector<const SafetensorsEntry*> order;
  for (const SafetensorsEntry& entry : entries_) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t at = 0;
  for (const SafetensorsEntry* entry : order) {
    const std::string where = fmt::format("{}: tensor `{}`", file_->name(), entry->name);
    const uint64_t size = entry_bytes(*entry, where);
    if (entry->begin != at || entry->end < entry->begin || entry->end - entry->begin != size) {
      throw Error(ErrorCode::kBadFile,
                  fmt::format("lies at bytes {} to {}, expected {} to {}", entry->begin, entry->end,
                              at, at + size),
                  where, "the file is damaged or was made to do harm");
    }
    at = entry->end;
  }
  if (at != file_->size() - data_offset_) {
    throw file_->damaged(fmt::format("has {} bytes of tensors, but its header describes {}",
                                     file_->size() - data_offset_, at));
  }
}

void SafetensorsFile::take_ties() {
  const auto found = metadata_.find(kTiesKey);
  if (found == metadata_.end()) return;
  const std::string where = fmt::format("{}: metadata `{}`", file_->name(), kTiesKey);
  const nlohmann::ordered_json ties = parse_file_json(found->second, where);
  metadata_.erase(found);
  if (!ties.is_object()) throw Error(ErrorCode::kBadFile, "is no JSON object", where);
  for (const auto& [alias, name] : ties.items()) {
    if (!name.is_string() || find(name.get<std::string>()) == nullptr || find(alias) != nullptr) {
      throw Error(ErrorCode::kBadFile,
                  fmt::format("`{}` is no further name of a stored tensor", alias), where);
    }
    ties_.emplace_back(alias, name.get<std::string>());
  }
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &entries_[found->second];
}

at::Tensor SafetensorsFile::tensor(const SafetensorsEntry& entry) const {
  const detail::SafetensorsDtype* dtype = detail::safetensors_dtype(entry.dtype);
  COMPRESS_CHECK(dtype != nullptr, "an entry that was not checked");
  if (!dtype->dtype) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("LibTorch has no plain dtype for `{}`", entry.dtype),
                fmt::format("{}: tensor `{}`", file_->name(), entry.name));
  }
  return file_->tensor(data_offset_ + entry.begin, *dtype->dtype, entry.sizes);
}

void SafetensorsFile::release(const SafetensorsEntry& entry) const {
  file_->release(data_offset_ + entry.begin, entry.end - entry.begin);
}

NamedTensors SafetensorsFile::tensors() const {
  NamedTensors tensors;
  tensors.reserve(entries_.size() + ties_.size());
  for (const SafetensorsEntry& entry : entries_) tensors.emplace_back(entry.name, tensor(entry));
  for (const auto& [alias, name] : ties_) {
    tensors.emplace_back(alias, tensors[index_.at(name)].second);
  }
  return tensors;
}

namespace {

struct Shard {
  std::string file;                // beside the index
  std::vector<std::string> names;  // of the tensors it should hold
};

// In the order in which the index first names them.
std::vector<Shard> read_index(const std::filesystem::path& index) {
  const auto file = MappedFile::open(index);
  const std::string& where = file->name();
  const nlohmann::ordered_json json = parse_file_json(file->text(0, file->size()), where);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object()) {
    throw Error(ErrorCode::kBadFile, "has no object `weight_map`", where,
                "an index of shards maps the name of each tensor to its file");
  }
  std::vector<Shard> shards;
  std::unordered_map<std::string, size_t> known;
  for (const auto& [name, shard] : map->items()) {
    const std::string value = shard.is_string() ? shard.get<std::string>() : std::string();
    if (value.empty() || value == ".." || value.find_first_of("/\\") != value.npos) {
      throw Error(
          ErrorCode::kBadFile,
          fmt::format("tensor `{}` lies in {}, expected the name of a file in the same folder",
                      name, shard.dump()),
          where + ": /weight_map");
    }
    const auto [found, fresh] = known.emplace(value, shards.size());
    if (fresh) shards.push_back({value, {}});
    shards[found->second].names.push_back(name);
  }
  return shards;
}

}  // namespace

std::vector<std::filesystem::path> safetensors_shards(const std::filesystem::path& index) {
  std::vector<std::filesystem::path> paths;
  for (const Shard& shard : read_index(index)) paths.push_back(index.parent_path() / shard.file);
  return paths;
}

NamedTensors load_sharded_safetensors(const std::filesystem::path& index, Metadata* metadata) {
  const std::string where = index.string();
  NamedTensors all;
  std::unordered_map<std::string, std::string> owner;
  for (const auto& [file, names] : read_index(index)) {
    const SafetensorsFile part = SafetensorsFile::open(index.parent_path() / file);
    for (auto& [name, tensor] : part.tensors()) {
      const auto [previous, fresh] = owner.emplace(name, file);
      if (!fresh) {
        throw Error(ErrorCode::kBadFile,
                    fmt::format("tensor `{}` is in `{}` and in `{}`", name, previous->second, file),
                    where);
      }
      all.emplace_back(name, std::move(tensor));
    }
    for (const std::string& name : names) {
      const auto found = owner.find(name);
      if (found == owner.end() || found->second != file) {
        throw Error(ErrorCode::kBadFile, fmt::format("tensor `{}` is not in `{}`", name, file),
                    where, "a shard is damaged or belongs to another model");
      }
    }
    if (metadata != nullptr) metadata->insert(part.metadata().begin(), part.metadata().end());
  }
  return all;
}

}  // namespace compress
