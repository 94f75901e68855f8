// Packing of small unsigned codes into bytes.

#include "compress/encoding_bits.h"

#include "compress/error.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace compress {
namespace {

constexpr int64_t kGrain = 1 << 15;  // codes a task: some 10 us of work

// Folds the `8 / width` codes that lie in the bytes of a Word into the low byte of that word. Every
// step halves the number of pieces: neighbours move together.
template <class Word, int kWidth>
void pack_words(const uint8_t* codes, int64_t bytes, int shift, uint8_t* out) {
  constexpr int kCodes = sizeof(Word);
  constexpr Word kOnes = static_cast<Word>(~Word{0}) / 0xff;  // 0x01 in every byte
  constexpr Word kMask = kOnes * ((1u << kWidth) - 1);
  for (int64_t i = 0; i < bytes; ++i) {
    Word word;
    std::memcpy(&word, codes + i * kCodes, kCodes);
    word = static_cast<Word>(word >> shift) & kMask;
    Word packed = word;
    for (int code = 1; code < kCodes; ++code) packed |= word >> (code * (8 - kWidth));
    out[i] = static_cast<uint8_t>(packed);
  }
}

}  // namespace

std::vector<int> code_fields(int bits) {
  COMPRESS_CHECK(bits >= 1 && bits <= 8, "codes have 1 to 8 bits");
  std::vector<int> fields;
  for (int width : {8, 4, 2, 1}) {
    if (bits & width) fields.push_back(width);
  }
  return fields;
}

void pack_row_reference(const uint8_t* codes, int64_t columns, int shift, int width, uint8_t* out) {
  const int per_byte = 8 / width;
  const unsigned mask = (1u << width) - 1;
  std::fill_n(out, packed_bytes(columns, width), uint8_t{0});
  for (int64_t i = 0; i < columns; ++i) {
    const unsigned code = (codes[i] >> shift) & mask;
    out[i / per_byte] |= static_cast<uint8_t>(code << (i % per_byte * width));
  }
}

void pack_row(const uint8_t* codes, int64_t columns, int shift, int width, uint8_t* out) {
  const int64_t per_byte = 8 / width;
  const int64_t whole = columns / per_byte;
  switch (width) {
    case 1:
      pack_words<uint64_t, 1>(codes, whole, shift, out);
      break;
    case 2:
      pack_words<uint32_t, 2>(codes, whole, shift, out);
      break;
    case 4:
      pack_words<uint16_t, 4>(codes, whole, shift, out);
      break;
    default:
      std::copy_n(codes, columns, out);
  }
  if (whole * per_byte < columns) {
    pack_row_reference(codes + whole * per_byte, columns - whole * per_byte, shift, width,
                       out + whole);
  }
}

std::vector<at::Tensor> pack_codes(const at::Tensor& codes, int bits) {
  COMPRESS_CHECK(codes.dim() == 2 && codes.scalar_type() == at::kByte, "codes are a byte matrix");
  const at::Tensor matrix = codes.contiguous();
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  std::vector<at::Tensor> fields;
  int shift = 0;
  for (int width : code_fields(bits)) {
    const int64_t stride = packed_bytes(columns, width);
    at::Tensor field = at::empty({rows, stride}, matrix.options());
    const uint8_t* in = matrix.const_data_ptr<uint8_t>();
    uint8_t* out = field.mutable_data_ptr<uint8_t>();
    at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns)),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t row = begin; row < end; ++row) {
                         pack_row(in + row * columns, columns, shift, width, out + row * stride);
                       }
                     });
    fields.push_back(std::move(field));
    shift += width;
  }
  return fields;
}

at::Tensor unpack_codes(const std::vector<at::Tensor>& fields, int bits, int64_t columns) {
  const std::vector<int> widths = code_fields(bits);
  COMPRESS_CHECK(fields.size() == widths.size(), "one matrix for each field of a code");
  const int64_t rows = fields[0].size(0);
  at::Tensor codes = at::empty({rows, columns}, fields[0].options());
  uint8_t* out = codes.mutable_data_ptr<uint8_t>();
  int shift = 0;
  for (size_t f = 0; f < fields.size(); ++f) {
    const at::Tensor field = fields[f].contiguous();
    const int width = widths[f], per_byte = 8 / width;
    const unsigned mask = (1u << width) - 1;
    const int64_t stride = packed_bytes(columns, width);
    COMPRESS_CHECK(field.size(0) == rows && field.size(1) == stride, "sizes of a packed field");
    const uint8_t* in = field.const_data_ptr<uint8_t>();
    at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns)),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t i = begin * columns; i < end * columns; ++i) {
                         const int64_t row = i / columns, column = i % columns;
                         const unsigned byte = in[row * stride + column / per_byte];
                         const unsigned code = (byte >> (column % per_byte * width)) & mask;
                         const unsigned low = f == 0 ? 0u : out[i];
                         out[i] = static_cast<uint8_t>(low | code << shift);
                       }
                     });
    shift += width;
  }
  return codes;
}

}  // namespace compress
