// Packing of small unsigned codes into bytes.
//
// A width of b bits is split into fields whose widths are powers of two, so that no code straddles
// a byte and unpacking is a shift and a mask, which plain ATen operators can do:
//   1 -> [1]   2 -> [2]   3 -> [2, 1]   4 -> [4]   5 -> [4, 1]   6 -> [4, 2]   7 -> [4, 2, 1]   8
//   -> [8]
// The first field holds the low bits. A field of width f is a byte matrix [rows, ceil(columns * f /
// 8)] with 8 / f codes in a byte, the first of them in the low bits; rows start at a byte, and what
// is left over in the last byte of a row is zero.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace compress {

/// The widths of the fields of a `bits`-wide code (1 to 8), low bits first.
std::vector<int> code_fields(int bits);

/// Bytes of a row of `columns` codes in a field of `width` bits.
inline int64_t packed_bytes(int64_t columns, int width) { return (columns * width + 7) / 8; }

/// Packs the bits `shift` .. `shift + width - 1` of `columns` codes (a byte each) into
/// `packed_bytes(columns, width)` bytes. `width` is 1, 2, 4 or 8.
void pack_row(const uint8_t* codes, int64_t columns, int shift, int width, uint8_t* out);
/// One code after the other: the oracle of `pack_row`.
void pack_row_reference(const uint8_t* codes, int64_t columns, int shift, int width, uint8_t* out);

/// Packs codes uint8 [rows, columns] into their fields.
std::vector<at::Tensor> pack_codes(const at::Tensor& codes, int bits);

/// The codes uint8 [rows, columns] of packed fields.
at::Tensor unpack_codes(const std::vector<at::Tensor>& fields, int bits, int64_t columns);

}  // namespace compress
