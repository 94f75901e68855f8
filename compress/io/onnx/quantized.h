// Quantized weights and biases as integers with DequantizeLinear.

#pragma once

#include "compress/encoding.h"

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace compress::onnx {

class Call;

/// The arguments and attributes of a DequantizeLinear that decodes a weight.
struct Dequantization {
  at::Tensor codes;       ///< int8 or uint8 in the sizes of the weight, or of its matrix
  bool is_signed = true;  ///< else codes are offset by `zero_point`
  at::Tensor scale;       ///< float [] for one, [n] along `axis`, or [.., groups, ..]
  at::Tensor zero_point;  ///< of the codes' type, sizes of `scale`; undefined: 0
  int64_t axis = 0;
  int64_t block_size = 0;  ///< elements along `axis` that share a scale; 0: all
  /// What follows: the matrix gets these sizes (rows first), and dimension `swapped` comes back to
  /// its place. Empty and 0 where nothing does.
  std::vector<int64_t> sizes;
  int64_t swapped = 0;
};

/// Splits a quantized weight; with `transposed` that of a matrix, the other way round.
Dequantization split(const QuantizedTensor& quantized, bool transposed);

/// Codes of 4 bits, two in a byte, the first in the low half, as TensorProto wants them.
at::Tensor pack_nibbles(const at::Tensor& codes);

/// The bias of a layer: int32 with the scale of the products where input and weight are integers,
/// since integer kernels add it to their sums; else as it is; an empty name where there is none.
std::string bias_of(Call& call);

}  // namespace compress::onnx
