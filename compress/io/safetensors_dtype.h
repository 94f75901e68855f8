// The names that safetensors gives to element types.

#pragma once

#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <string_view>

namespace compress::detail {

/// An element type of the format; `dtype` is empty for those that LibTorch has no plain dtype for.
struct SafetensorsDtype {
  std::string_view name;
  int bits;
  std::optional<at::ScalarType> dtype;
};

/// Null if the format has no type of this name.
const SafetensorsDtype* safetensors_dtype(std::string_view name);
/// Null if the format has no type for this dtype.
const SafetensorsDtype* safetensors_dtype(at::ScalarType dtype);
/// "BOOL, U8, ...", for messages.
std::string safetensors_dtype_names();

}  // namespace compress::detail
