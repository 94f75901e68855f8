// The file that a streamed run writes, and what its metadata will say.

#include "compress/stream_output.h"

#include "compress/io/compressed_tensors.h"
#include "compress/io/mapped_file.h"
#include "compress/stream_scan.h"

#include <ATen/ops/mul.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <span>
#include <string_view>

namespace compress {
namespace {

// What is masked at once and handed to the system: it comes out of the processor's cache.
constexpr int64_t kBlockBytes = 1 << 20;
// What one job masks, so that a large tensor is given back bit by bit.
constexpr int64_t kJobBytes = 1 << 25;

// Tensors whose bytes are no multiple of 8 would leave those behind them misaligned; up to this
// size they wait in memory for the end of the file.
constexpr size_t kWaitingBytes = 1 << 16;

bool waits(const at::Tensor& tensor) {
  return tensor.nbytes() % 8 != 0 && tensor.nbytes() <= kWaitingBytes;
}

// Groups of one scheme become one.
void merge_groups(Json& groups, const Json& added) {
  for (Json& group : groups) {
    if (group["weights"] != added["weights"]) continue;
    group["targets"].insert(group["targets"].end(), added["targets"].begin(),
                            added["targets"].end());
    return;
  }
  groups[fmt::format("group_{}", groups.size())] = added;
}

}  // namespace

StreamOutput::StreamOutput(const std::filesystem::path& path, uint64_t header_room)
    : writer_(path, header_room) {}

void StreamOutput::add(const std::string& name, const at::Tensor& tensor) {
  order_.push_back(name);
  if (waits(tensor)) {
    waiting_.emplace_back(name, tensor.clone());
    return;
  }
  jobs_.add(static_cast<int64_t>(tensor.nbytes()), [this, name, tensor] {
    writer_.add(name, tensor);
    release_pages(tensor);
  });
}

void StreamOutput::add_masked(const std::string& name, const at::Tensor& weight,
                              const at::Tensor& mask, int64_t* nonzeros) {
  if (waits(weight) || !can_mask(weight.scalar_type())) {
    const at::Tensor product = weight.mul(mask).add_(0);
    *nonzeros += product.count_nonzero().item<int64_t>();
    return add(name, product);
  }
  order_.push_back(name);
  const at::Tensor elements = weight.contiguous().view({-1}), keep = mask.contiguous().view({-1});
  const int64_t total = elements.numel(), width = elements.element_size();
  jobs_.add(0, [this, name, weight] { writer_.begin(name, weight); });
  for (int64_t start = 0, size = 0; start < total; start += size) {
    size = std::min(kJobBytes / width, total - start);
    const at::Tensor part = elements.narrow(0, start, size);
    jobs_.add(size * width, [this, part, kept = keep.narrow(0, start, size), nonzeros] {
      write_masked(part, kept, nonzeros);
      release_pages(part);
    });
  }
}

// Runs on the jobs' thread, as all that touches `writer_` and `block_`.
void StreamOutput::write_masked(const at::Tensor& elements, const at::Tensor& keep,
                                int64_t* nonzeros) {
  block_.resize(kBlockBytes / sizeof(block_[0]));
  const auto* data = static_cast<const std::byte*>(elements.const_data_ptr());
  const int64_t width = elements.element_size();
  for (int64_t start = 0, size = 0; start < elements.numel(); start += size) {
    size = std::min(kBlockBytes / width, elements.numel() - start);
    *nonzeros += mask_elements(elements.scalar_type(), data + start * width,
                               keep.const_data_ptr<bool>() + start, size, block_.data());
    writer_.append(std::as_bytes(std::span(block_)).first(static_cast<size_t>(size * width)));
  }
}

void StreamOutput::add_packed(const Model& model) {
  const CompressedTensors packed = pack_compressed_tensors(model);
  for (const auto& [name, tensor] : packed.tensors) add(name, tensor);
  for (const auto& [key, value] : packed.metadata) merge(key, value);
}

void StreamOutput::add_tie(std::string alias, std::string name) {
  ties_.emplace_back(std::move(alias), std::move(name));
}

void StreamOutput::add_dense(const std::string& name) {
  constexpr std::string_view kWeight = ".weight";
  if (name.ends_with(kWeight)) dense_.push_back(name.substr(0, name.size() - kWeight.size()));
}

bool StreamOutput::is_packed() const { return merged_.contains(kQuantizationConfigKey); }

void StreamOutput::finish(const Metadata& metadata) {
  jobs_.wait();
  std::stable_sort(waiting_.begin(), waiting_.end(), [](const auto& a, const auto& b) {
    return a.second.element_size() > b.second.element_size();
  });
  for (const auto& [name, tensor] : waiting_) writer_.add(name, tensor);
  for (const auto& [alias, name] : ties_) writer_.add_tie(alias, name);
  for (const auto& [key, value] : metadata) writer_.set_metadata(key, value);
  if (is_packed()) {
    merged_[kQuantizationConfigKey]["ignore"] = dense_;
    writer_.set_metadata("format", "pt");
  }
  for (const auto& [key, json] : merged_) writer_.set_metadata(key, json.dump());
  writer_.list_in_order(order_);
  writer_.finish();
}

// Each weight comes with a configuration of its own.
void StreamOutput::merge(const std::string& key, const std::string& text) {
  if (key == "format") return;
  Json json = Json::parse(text);
  const auto known = merged_.find(key);
  if (known == merged_.end()) {
    merged_[key] = std::move(json);
  } else if (key != kQuantizationConfigKey) {
    known->second.update(json);
  } else {
    if (known->second["format"] != json["format"]) known->second["format"] = kMixedLayout;
    merge_groups(known->second["config_groups"], json["config_groups"].front());
  }
}

}  // namespace compress
