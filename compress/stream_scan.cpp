// What a run over a file reads and writes of each element, in as few passes over memory as it
// takes.

#include "compress/stream_scan.h"

#include "compress/error.h"
#include "compress/graph/digest.h"
#include "compress/multiversion.h"

#include <ATen/ops/count_nonzero.h>

#include <span>

namespace compress {
namespace {

// Elements that are not zero; `odd` is set if one is infinite or NaN, which is to have all bits of
// the exponent.
template <class Word>
COMPRESS_MULTIVERSION int64_t look_at(const Word* elements, int64_t size, Word exponent,
                                      Word* odd) {
  int64_t count = 0;
  Word any = 0;
  for (int64_t i = 0; i < size; ++i) {
    count += static_cast<Word>(elements[i] << 1) != 0;
    any |= (elements[i] & exponent) == exponent;
  }
  *odd |= any;
  return count;
}

template <class Word>
COMPRESS_MULTIVERSION int64_t mask_words(const Word* elements, const uint8_t* keep, int64_t size,
                                         Word* out) {
  int64_t count = 0;
  for (int64_t i = 0; i < size; ++i) {
    const bool is_nonzero = (keep[i] != 0) & (static_cast<Word>(elements[i] << 1) != 0);
    out[i] = is_nonzero ? elements[i] : 0;
    count += is_nonzero;
  }
  return count;
}

template <class Word>
TensorScan scan_words(const at::Tensor& tensor, Word exponent) {
  TensorScan scan;
  Word odd = 0;
  scan.digest = tensor_digest(tensor, [&](std::span<const std::byte> piece) {
    scan.nonzeros += look_at(reinterpret_cast<const Word*>(piece.data()),
                             static_cast<int64_t>(piece.size() / sizeof(Word)), exponent, &odd);
  });
  scan.is_finite = odd == 0;
  return scan;
}

template <class Word>
int64_t mask_as(const void* elements, const bool* keep, int64_t size, void* out) {
  return mask_words(static_cast<const Word*>(elements), reinterpret_cast<const uint8_t*>(keep),
                    size, static_cast<Word*>(out));
}

}  // namespace

TensorScan scan_tensor(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kHalf:
      return scan_words<uint16_t>(tensor, 0x7c00);
    case at::kBFloat16:
      return scan_words<uint16_t>(tensor, 0x7f80);
    case at::kFloat:
      return scan_words<uint32_t>(tensor, 0x7f800000);
    case at::kDouble:
      return scan_words<uint64_t>(tensor, 0x7ff0000000000000);
    default:
      return {tensor_digest(tensor), tensor.count_nonzero().item<int64_t>(), std::nullopt};
  }
}

bool can_mask(at::ScalarType dtype) {
  return dtype == at::kHalf || dtype == at::kBFloat16 || dtype == at::kFloat ||
         dtype == at::kDouble;
}

int64_t mask_elements(at::ScalarType dtype, const void* elements, const bool* keep, int64_t size,
                      void* out) {
  COMPRESS_CHECK(can_mask(dtype), "a type whose elements can be masked");
  if (dtype == at::kFloat) return mask_as<uint32_t>(elements, keep, size, out);
  if (dtype == at::kDouble) return mask_as<uint64_t>(elements, keep, size, out);
  return mask_as<uint16_t>(elements, keep, size, out);
}

}  // namespace compress
