// Digests of tensors and models.

#include "compress/graph/digest.h"

#include "compress/error.h"
#include "compress/graph/dtype_names.h"
#include "compress/graph/text.h"

#include <fmt/format.h>

#include <algorithm>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace compress {
namespace {

constexpr size_t kPiece = size_t{1} << 17;  // bytes; fits into the smallest second-level caches

std::string to_hex(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

std::string tensor_digest(const at::Tensor& tensor) { return tensor_digest(tensor, {}); }

std::string tensor_digest(const at::Tensor& tensor,
                          const std::function<void(std::span<const std::byte>)>& look) {
  if (tensor.layout() != c10::kStrided) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("found a tensor of layout {}, expected a dense one",
                            layout_name(tensor.layout())));
  }
  const at::Tensor plain =
      tensor.detach().cpu().resolve_conj().resolve_neg().contiguous();  // copies only if needed
  std::string header(dtype_name(plain.scalar_type()));
  for (const int64_t size : plain.sizes()) header += fmt::format(",{}", size);
  header += ';';

  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  XXH3_128bits_update(&state, header.data(), header.size());
  const auto* data = static_cast<const std::byte*>(plain.const_data_ptr());
  const size_t piece = look ? kPiece : plain.nbytes();
  for (size_t at = 0; at < plain.nbytes(); at += piece) {
    const std::span<const std::byte> bytes(data + at, std::min(piece, plain.nbytes() - at));
    XXH3_128bits_update(&state, bytes.data(), bytes.size());
    if (look) look(bytes);
  }
  return to_hex(XXH3_128bits_digest(&state));
}

std::string tensor_digest(const NamedTensor& tensor) {
  return tensor.tensor.defined() ? tensor_digest(tensor.tensor) : tensor.digest;
}

std::string model_digest(const Model& model) {
  PrintOptions skeleton;
  skeleton.types = false;
  skeleton.contents = false;
  std::string text = print(model, skeleton);
  for (const NamedTensor& tensor : model.tensors()) text += tensor_digest(tensor) + "\n";
  return to_hex(XXH3_128bits(text.data(), text.size()));
}

}  // namespace compress
