// A quantized weight: integer codes with scales, as tensors.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace compress {

/// A weight as small integers: weight = (code - zero_point) * scale.
///
/// The weight is seen as a matrix [rows, columns] with one row for each index of dimension
/// `channel_dim` (that dimension swapped with the first) and all else flattened into columns.
/// Scales are a matrix [rows or 1, groups]: groups of `group_size` consecutive columns share one;
/// the last group of a row may be shorter. A zero is always exact: some code decodes to exactly 0.
/// With a codebook, weight = codebook[code] * scale instead (NF4, FP4, FP8).
struct QuantizedTensor {
  std::vector<int64_t> sizes;         ///< of the weight
  at::ScalarType dtype = at::kFloat;  ///< of the decoded weight
  int64_t channel_dim = 0;            ///< the dimension of the rows
  int bits = 8;                       ///< 1 to 8
  std::vector<at::Tensor> fields;     ///< packed codes (compress/encoding_bits.h), uint8
  at::Tensor scale;                   ///< floating [rows or 1, groups]
  at::Tensor zero_point;              ///< uint8, sizes of `scale`; undefined when symmetric
  int64_t group_size = 0;             ///< columns that share a scale; `columns()` for all
  at::Tensor codebook;                ///< float [2^bits]: what codes stand for; undefined: integers
  at::Tensor global_scale;            ///< float []: multiplies all scales; undefined: 1

  bool symmetric() const { return !zero_point.defined(); }
  bool has_codebook() const { return codebook.defined(); }
  /// What a symmetric code is offset by: code 2^(bits-1) is zero.
  int64_t offset() const { return int64_t{1} << (bits - 1); }
  int64_t rows() const { return sizes.at(channel_dim); }
  int64_t columns() const;
  int64_t groups() const { return scale.size(1); }
  /// Bits of codes, scales and zero points as they are stored.
  int64_t bits_on_disk() const;
};

/// `weight` as the matrix [rows, columns] of a quantized tensor (a copy only where it must be).
at::Tensor as_matrix(const at::Tensor& weight, int64_t channel_dim);
/// The inverse of `as_matrix`.
at::Tensor from_matrix(const at::Tensor& matrix, const std::vector<int64_t>& sizes,
                       int64_t channel_dim);

/// The decoded weight.
at::Tensor dequantize(const QuantizedTensor& quantized);

}  // namespace compress
