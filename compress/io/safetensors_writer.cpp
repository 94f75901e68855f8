// Writes safetensors files: whole, streamed, sharded.

#include "compress/error.h"
#include "compress/io/little_endian.h"
#include "compress/io/safetensors.h"
#include "compress/io/safetensors_dtype.h"
#include "compress/io/safetensors_header.h"
#include "compress/io/tensor_view.h"

#include <ATen/ops/contiguous.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>

namespace compress {
namespace {

// Tensors begin at a multiple of this; what the processor's widest loads like.
constexpr uint64_t kDataAlignment = 64;

std::string valid_utf8(const std::string& name) {
  try {
    return nlohmann::json(name).dump();
  } catch (const nlohmann::json::type_error&) {
    throw Error(ErrorCode::kInvalidArgument, "a tensor's name is not UTF-8", name);
  }
}

const detail::SafetensorsDtype& dtype_of(const std::string& name, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != at::kStrided) {
    throw Error(ErrorCode::kUnsupported, "only dense tensors can be written to safetensors", name,
                "make it dense first");
  }
  const detail::SafetensorsDtype* dtype = detail::safetensors_dtype(tensor.scalar_type());
  if (dtype == nullptr) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("safetensors has no type for {}", c10::toString(tensor.scalar_type())),
                name, "convert it first");
  }
  return *dtype;
}

// Which tensors a file stores, in which order of bytes, and which names are further names.
struct Plan {
  std::vector<size_t> stored;  // positions, widest elements first so that all are aligned
  std::vector<std::pair<size_t, size_t>> ties;  // (alias, stored)
};

Plan make_plan(const NamedTensors& tensors) {
  std::vector<at::Tensor> values;
  for (const auto& [name, tensor] : tensors) {
    dtype_of(name, tensor);
    values.push_back(tensor);
  }
  const std::vector<size_t> first = first_of_ties(values);
  Plan plan;
  for (size_t i = 0; i < first.size(); ++i) {
    if (first[i] == i) {
      plan.stored.push_back(i);
    } else {
      plan.ties.emplace_back(i, first[i]);
    }
  }
  return plan;
}

void sort_widest_first(std::vector<size_t>& order, const NamedTensors& tensors) {
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return tensors[a].second.element_size() > tensors[b].second.element_size();
  });
}

// The size of the header of these tensors: everything is known before the first byte is written.
uint64_t header_size(const NamedTensors& tensors, const std::vector<size_t>& stored,
                     const std::vector<std::pair<size_t, size_t>>& ties, Metadata metadata) {
  std::vector<SafetensorsEntry> entries;
  uint64_t bytes = 0;
  for (const size_t i : stored) {
    const auto& [name, tensor] = tensors[i];
    const uint64_t begin = bytes;
    bytes += static_cast<uint64_t>(tensor.nbytes());
    entries.push_back({valid_utf8(name), std::string(dtype_of(name, tensor).name),
                       tensor.sizes().vec(), begin, bytes});
  }
  for (const auto& [key, value] : metadata) {
    valid_utf8(key);
    valid_utf8(value);
  }
  std::map<std::string, std::string> names;
  for (const auto& [alias, name] : ties) {
    names[valid_utf8(tensors[alias].first)] = tensors[name].first;
  }
  if (!names.empty()) metadata[kTiesKey] = nlohmann::json(names).dump();
  return detail::print_safetensors_header(entries, metadata).size();
}

// A writer filled with `stored` (positions).
SafetensorsWriter write_part(const std::filesystem::path& path, const NamedTensors& tensors,
                             std::vector<size_t> stored,
                             const std::vector<std::pair<size_t, size_t>>& ties,
                             const Metadata& metadata) {
  std::vector<std::string> order;
  for (const size_t i : stored) order.push_back(tensors[i].first);
  sort_widest_first(stored, tensors);
  SafetensorsWriter writer(path, header_size(tensors, stored, ties, metadata));
  for (const size_t i : stored) writer.add(tensors[i].first, tensors[i].second);
  for (const auto& [alias, name] : ties) writer.add_tie(tensors[alias].first, tensors[name].first);
  for (const auto& [key, value] : metadata) writer.set_metadata(key, value);
  writer.list_in_order(order);
  return writer;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, uint64_t header_bytes)
    : file_(path),
      header_bytes_((8 + header_bytes + kDataAlignment - 1) / kDataAlignment * kDataAlignment - 8) {
  // Spaces are legal padding of the header.
  std::string room;
  append_le<uint64_t>(room, header_bytes_);
  room.append(header_bytes_, ' ');
  file_.append(room);
}

uint64_t SafetensorsWriter::header_bound(const std::vector<std::string>& names,
                                         size_t max_dimensions, const Metadata& metadata) {
  // {"dtype":"F8_E4M3FNUZ","shape":[...],"data_offsets":[a,b]}, with numbers of up to 20 digits.
  constexpr uint64_t kFixed = 110;
  uint64_t bound = 64;
  uint64_t longest = 0;
  for (const std::string& name : names) {
    const uint64_t size = valid_utf8(name).size();
    longest = std::max(longest, size);
    bound += size + kFixed + 21 * max_dimensions;
  }
  // Ties are JSON inside JSON: each name may be escaped twice. Those known here are few in
  // practice, so room for one of each name is reserved only in proportion to the names themselves.
  for (const std::string& name : names) bound += 2 * (valid_utf8(name).size() + longest) + 16;
  for (const auto& [key, value] : metadata) {
    bound += valid_utf8(key).size() + valid_utf8(value).size() + 4;
  }
  return bound;
}

void SafetensorsWriter::begin(const std::string& name, const at::Tensor& like) {
  const detail::SafetensorsDtype& dtype = dtype_of(name, like);
  require_complete();
  valid_utf8(name);
  if (name == "__metadata__" || !names_.emplace(name, true).second) {
    throw Error(ErrorCode::kInvalidArgument,
                name == "__metadata__" ? "is no name for a tensor in this format"
                                       : "two tensors have this name",
                name);
  }
  missing_ = static_cast<uint64_t>(like.nbytes());
  entries_.push_back(
      {name, std::string(dtype.name), like.sizes().vec(), data_bytes_, data_bytes_ + missing_});
  data_bytes_ += missing_;
}

void SafetensorsWriter::append(const at::Tensor& piece) {
  const at::Tensor plain = piece.detach().resolve_conj().resolve_neg().cpu().contiguous();
  append(std::span(static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()));
}

void SafetensorsWriter::append(std::span<const std::byte> piece) {
  COMPRESS_CHECK(piece.size() <= missing_, "a tensor gets more bytes than it was begun with");
  file_.append(piece);
  missing_ -= piece.size();
}

void SafetensorsWriter::add(const std::string& name, const at::Tensor& tensor) {
  begin(name, tensor);
  append(tensor);
}

void SafetensorsWriter::require_complete() const {
  COMPRESS_CHECK(missing_ == 0, "a tensor got fewer bytes than it was begun with");
}

void SafetensorsWriter::add_tie(const std::string& alias, const std::string& name) {
  const auto found = names_.find(name);
  valid_utf8(alias);
  if (found == names_.end() || !found->second || !names_.emplace(alias, false).second) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("cannot be a further name of `{}`", name),
                alias);
  }
  ties_[alias] = name;
}

void SafetensorsWriter::set_metadata(const std::string& key, const std::string& value) {
  if (key == kTiesKey) {
    throw Error(ErrorCode::kInvalidArgument, "this metadata key is reserved", key);
  }
  valid_utf8(key);
  valid_utf8(value);
  metadata_[key] = value;
}

void SafetensorsWriter::list_in_order(const std::vector<std::string>& names) {
  std::unordered_map<std::string_view, size_t> rank;
  for (const std::string& name : names) rank.emplace(name, rank.size());
  std::stable_sort(entries_.begin(), entries_.end(),
                   [&](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     const auto rank_of = [&](const SafetensorsEntry& entry) {
                       const auto found = rank.find(entry.name);
                       return found == rank.end() ? rank.size() : found->second;
                     };
                     return rank_of(a) < rank_of(b);
                   });
}

void SafetensorsWriter::prepare() {
  require_complete();
  Metadata metadata = metadata_;
  if (!ties_.empty()) metadata[kTiesKey] = nlohmann::json(ties_).dump();
  const std::string header = detail::print_safetensors_header(entries_, metadata);
  if (header.size() > header_bytes_) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the safetensors header takes {} bytes, {} were reserved",
                            header.size(), header_bytes_));
  }
  file_.write_at(8, header);
  file_.sync();
}

void SafetensorsWriter::finish() {
  prepare();
  publish();
}

void save_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                      const Metadata& metadata) {
  Plan plan = make_plan(tensors);
  write_part(path, tensors, std::move(plan.stored), plan.ties, metadata).finish();
}

std::filesystem::path save_sharded_safetensors(const std::filesystem::path& path,
                                               const NamedTensors& tensors,
                                               uint64_t max_shard_bytes, const Metadata& metadata) {
  const Plan plan = make_plan(tensors);
  std::vector<std::vector<size_t>> shards(1);
  std::unordered_map<size_t, size_t> shard_of;
  uint64_t total = 0, filled = 0;
  for (const size_t i : plan.stored) {
    const auto size = static_cast<uint64_t>(tensors[i].second.nbytes());
    if (!shards.back().empty() && filled + size > max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shard_of[i] = shards.size() - 1;
    shards.back().push_back(i);
    filled += size;
    total += size;
  }
  if (shards.size() == 1) {
    save_safetensors(path, tensors, metadata);
    return path;
  }
  const std::string stem = path.stem().string();
  nlohmann::json index = {{"metadata", {{"total_size", total}}},
                          {"weight_map", nlohmann::json::object()}};
  std::deque<SafetensorsWriter> writers;
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string name =
        fmt::format("{}-{:05}-of-{:05}.safetensors", stem, s + 1, shards.size());
    std::vector<std::pair<size_t, size_t>> ties;
    for (const auto& tie : plan.ties) {
      if (shard_of.at(tie.second) == s) ties.push_back(tie);
    }
    for (const size_t i : shards[s]) index["weight_map"][tensors[i].first] = name;
    writers.push_back(write_part(path.parent_path() / name, tensors, shards[s], ties, metadata));
    writers.back().prepare();
  }
  for (SafetensorsWriter& writer : writers) writer.publish();
  const auto index_path = path.parent_path() / (stem + ".safetensors.index.json");
  write_file(index_path, index.dump(2) + "\n");
  return index_path;
}

}  // namespace compress
