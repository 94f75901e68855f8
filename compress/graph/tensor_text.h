// The elements of small tensors in the text form.

#pragma once

#include "compress/graph/lexer.h"

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace compress::text {

/// Tensors of more elements are shown by their digest.
inline constexpr int64_t kMaxPrintedElements = 8;

/// Whether the elements are written out: few enough, and of a real dtype.
bool prints_elements(const at::Tensor& tensor);

/// Adds nested lists of the elements, each the shortest decimal that reads back as itself; without
/// the mark of floats that arguments have, as the dtype stands beside them.
void append_elements(std::string& text, const at::Tensor& tensor);

/// Reads nested lists that must fit `sizes`.
at::Tensor read_elements(Lexer& lexer, c10::ScalarType dtype, const std::vector<int64_t>& sizes);

}  // namespace compress::text
