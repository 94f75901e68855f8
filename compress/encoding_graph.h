// A quantized weight as nodes of a graph: plain ATen operators, which Python runs without an
// extension.
//
//   unsqueeze = aten::unsqueeze(fc.weight_codes4, -1)                 u8 [rows, bytes, 1]
//   shifted   = aten::__rshift__.Tensor(unsqueeze, shifts4)           u8 [rows, bytes, 2]
//   masked    = aten::__and__.Scalar(shifted, 15)
//   codes     = aten::flatten.using_ints(masked, 1, 2)                u8 [rows, 2 * bytes]
//   codes     = aten::slice.Tensor(codes, 1, 0, columns)              where a row's last byte is
//   padded codes     = aten::add.Tensor(low, high, alpha=4)                  for each further field
//   values    = aten::to.dtype(codes, f32)
//   grouped   = aten::view(values, [rows, groups, group_size])        where a row has several
//   groups centred   = aten::sub.Scalar(grouped, 8)     or  aten::sub.Tensor(grouped, zero_point)
//   scaled    = aten::mul.Tensor(centred, scale)
//   weight    = aten::view(scaled, sizes), and aten::transpose.int, aten::to.dtype where they
//   matter
//
// With a codebook, the codes are its indices and nothing is subtracted:
//   indices   = aten::to.dtype(codes, i32)
//   values    = aten::index.Tensor(nf4_codebook, [indices])
// Scales in eight bits (nvfp4, mxfp4) and those below a global scale become floats first:
//   scale     = aten::to.dtype(fc.weight_scale, f32)
//   scale     = aten::mul.Tensor(scale, fc.weight_global_scale)
//
// With several groups, scale and zero point are spread by unsqueeze(-1), or where the last group is
// shorter by repeat_interleave and slice. The interpreter computes all this once and keeps the
// result.

#pragma once

#include "compress/encoding.h"
#include "compress/model.h"

#include <optional>
#include <string>
#include <vector>

namespace compress {

/// Adds the tensors `<name>_codes<width>`, `<name>_scale`, `<name>_zero_point`,
/// `<name>_global_scale` and `<name>_codebook`, as far as there are, and, in front of `before`
/// (null: at the end), the nodes that decode them. Codebooks of formats are constants that all
/// weights share. Returns the decoded weight.
Value* insert_decoding(Model& model, const QuantizedTensor& quantized, const std::string& name,
                       Node* before, const std::string& module_path = {});

/// A decoding that was found in a graph.
struct Decoding {
  QuantizedTensor quantized;    ///< shares the model's tensors
  std::vector<Value*> tensors;  ///< the named tensors it is made of, the first codes first
};

/// Recognises the decoding that computes `value`, by the operators alone: it makes no difference
/// which program wrote them, or whether Python has exported them anew.
std::optional<Decoding> match_decoding(const Model& model, const Value* value);

}  // namespace compress
