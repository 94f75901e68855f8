// Tensors over a storage whose layout a file claims: every claim is checked before it is believed.

#include "compress/io/tensor_view.h"

#include "compress/error.h"

#include <ATen/ops/empty.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace compress {
namespace {

// LibTorch itself has no limit; no real model comes near.
constexpr size_t kMaxDimensions = 64;
// A view may repeat elements (an expanded buffer) up to this much data without being suspicious.
constexpr uint64_t kHarmlessBytes = uint64_t{16} << 20;
// Sizes, offsets and byte counts stay below this, so that products with an item size fit in 64
// bits.
constexpr int64_t kMaxElements = int64_t{1} << 58;

Error bad_layout(std::string message, const std::string& where) {
  return Error(ErrorCode::kBadFile, std::move(message), where,
               "the file is damaged or was made to do harm");
}

// a * b of two non-negative numbers, refused beyond kMaxElements.
int64_t checked_product(int64_t a, int64_t b, const std::string& where) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product) || product > kMaxElements) {
    throw bad_layout(fmt::format("{} x {} elements are more than a tensor can have", a, b), where);
  }
  return product;
}

void check_sizes(at::IntArrayRef sizes, const std::string& where) {
  if (sizes.size() > kMaxDimensions) {
    throw bad_layout(
        fmt::format("{} dimensions, expected at most {}", sizes.size(), kMaxDimensions), where);
  }
  for (const int64_t size : sizes) {
    if (size < 0) throw bad_layout(fmt::format("negative size {}", size), where);
  }
}

bool has_no_elements(at::IntArrayRef sizes) {
  return std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
}

}  // namespace

std::vector<int64_t> contiguous_strides(at::IntArrayRef sizes, const std::string& where) {
  check_sizes(sizes, where);
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride = checked_product(stride, std::max<int64_t>(sizes[i], 1), where);
  }
  return strides;
}

uint64_t required_bytes(const TensorView& view, const std::string& where) {
  check_sizes(view.sizes, where);
  if (view.strides.size() != view.sizes.size()) {
    throw bad_layout(
        fmt::format("{} strides for {} dimensions", view.strides.size(), view.sizes.size()), where);
  }
  if (view.storage_offset < 0 || view.storage_offset > kMaxElements) {
    throw bad_layout(fmt::format("storage offset {}", view.storage_offset), where);
  }
  int64_t end = view.storage_offset + 1;
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    if (view.strides[i] < 0) throw bad_layout(fmt::format("stride {}", view.strides[i]), where);
    end += checked_product(std::max<int64_t>(view.sizes[i] - 1, 0), view.strides[i], where);
    if (end > kMaxElements) throw bad_layout("layout reaches beyond any storage", where);
  }
  contiguous_strides(view.sizes, where);  // the number of elements must be countable, too
  if (has_no_elements(view.sizes)) return 0;
  return static_cast<uint64_t>(end) * c10::elementSize(view.dtype);
}

at::Tensor view_storage(const at::Storage& storage, const TensorView& view,
                        const std::string& where) {
  const uint64_t needed = required_bytes(view, where);
  const auto available = static_cast<uint64_t>(storage.nbytes());
  if (needed > available) {
    throw bad_layout(fmt::format("a tensor of sizes [{}] needs {} bytes, its storage has {}",
                                 fmt::join(view.sizes, ", "), needed, available),
                     where);
  }
  uint64_t logical = needed == 0 ? 0 : c10::elementSize(view.dtype);
  for (const int64_t size : view.sizes) logical *= static_cast<uint64_t>(size);
  if (logical > kHarmlessBytes && logical > available) {
    throw bad_layout(
        fmt::format("a tensor of sizes [{}] repeats {} bytes of storage up to {} bytes",
                    fmt::join(view.sizes, ", "), available, logical),
        where);
  }
  at::Tensor tensor = at::empty({0}, at::TensorOptions().dtype(view.dtype));
  // An empty tensor may claim an offset beyond its storage; nothing is there to be read.
  const int64_t offset = needed == 0 ? 0 : view.storage_offset;
  return tensor.set_(storage, offset, view.sizes, view.strides);
}

bool same_elements(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() > 0 && a.dtype() == b.dtype() && a.is_alias_of(b) &&
         a.storage_offset() == b.storage_offset() && a.sizes() == b.sizes() &&
         a.strides() == b.strides();
}

std::vector<size_t> first_of_ties(const std::vector<at::Tensor>& tensors) {
  std::map<std::pair<const void*, int64_t>, std::vector<size_t>> seen;
  std::vector<size_t> first(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    first[i] = i;
    const at::Tensor& tensor = tensors[i];
    if (tensor.numel() == 0 || !tensor.has_storage()) continue;
    auto& same_place = seen[{tensor.storage().unsafeGetStorageImpl(), tensor.storage_offset()}];
    const auto match = std::find_if(same_place.begin(), same_place.end(), [&](size_t other) {
      return same_elements(tensors[other], tensor);
    });
    if (match == same_place.end()) {
      same_place.push_back(i);
    } else {
      first[i] = *match;
    }
  }
  return first;
}

}  // namespace compress
