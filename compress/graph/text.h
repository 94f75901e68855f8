// The text form of a model: canonical, one line for each input, named tensor and node.
//
//   input x : f32[batch,4]
//   parameter fc.weight : f32[2,4] = #5d1e...            a digest of dtype, sizes and bytes
//   parameter scale alias other.scale : f32[2] = [1, 2]  up to 8 elements are written out
//   linear = aten::linear(x, fc.weight) : f32[batch,2] @ fc
//   mul = aten::mul.Tensor(linear, scale) : f32[batch,2]
//   return output = mul
//   update counter = add
//
// Trailing arguments that equal the schema's defaults are left out; keyword-only arguments are
// `name=value`. Constants: `none`, `true`, `1`, `1.0` (floats bear a mark), `"text"` with JSON's
// escapes, `f32`, `strided`, `channels_last`, `cpu`, lists in brackets. A name that is not a plain
// word, or could be taken for a constant, is written `%"name"`. `?` is an unknown dtype or type,
// `[...]` are unknown sizes. A `#` with a space after it starts a comment.
//
// A set of tensors (no inputs, no nodes, everything returned under its name) has no `return` lines.

#pragma once

#include "compress/model.h"

#include <string>
#include <string_view>

namespace compress {

struct PrintOptions {
  bool types = true;     ///< of the nodes' results; inputs and named tensors always have theirs
  bool tensors = true;   ///< the lines of named tensors
  bool contents = true;  ///< elements or digests of named tensors
};

/// The text form. With the default options `print(parse_model(t)) == t` for every text that it
/// wrote.
std::string print(const Model& model, const PrintOptions& options = {});

/// One node, as in the text form without the end of the line.
std::string print(const Node& node, const PrintOptions& options = {});

/// `f32[batch,3,32,32]`, `f32[...]`, `?`.
std::string print(const TensorType& type);

/// Reads the text form. The role of a tensor (`parameter`) and types of results may be missing. A
/// tensor that is given by its digest, or not at all, is undefined in the model. Throws
/// Error(kBadFile) naming line and column, what was found and what was expected; also for an
/// `aten::` operator that this LibTorch lacks.
Model parse_model(std::string_view text);

}  // namespace compress
