// Short names of dtypes (`f32`, `i64`, `bool`), layouts and memory formats in text.

#pragma once

#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <string_view>

namespace compress {

/// `f32` for kFloat; a dtype without a short name has LibTorch's (`QInt8`).
std::string_view dtype_name(c10::ScalarType dtype);
/// The dtype of that short name.
std::optional<c10::ScalarType> find_dtype(std::string_view name);

/// `strided`, `sparse_coo`, ...
std::string_view layout_name(c10::Layout layout);
std::optional<c10::Layout> find_layout(std::string_view name);

/// `contiguous_format`, `channels_last`, ...
std::string_view memory_format_name(c10::MemoryFormat format);
std::optional<c10::MemoryFormat> find_memory_format(std::string_view name);

}  // namespace compress
