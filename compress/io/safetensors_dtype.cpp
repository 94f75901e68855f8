// The names that safetensors gives to element types.

#include "compress/io/safetensors_dtype.h"

#include <array>

namespace compress::detail {
namespace {

constexpr std::array<SafetensorsDtype, 22> kDtypes = {{
    {"BOOL", 8, at::kBool},
    {"U8", 8, at::kByte},
    {"I8", 8, at::kChar},
    {"F8_E5M2", 8, at::kFloat8_e5m2},
    {"F8_E4M3", 8, at::kFloat8_e4m3fn},
    {"F8_E5M2FNUZ", 8, at::kFloat8_e5m2fnuz},
    {"F8_E4M3FNUZ", 8, at::kFloat8_e4m3fnuz},
    {"F8_E8M0", 8, at::ScalarType::Float8_e8m0fnu},
    {"I16", 16, at::kShort},
    {"U16", 16, at::kUInt16},
    {"F16", 16, at::kHalf},
    {"BF16", 16, at::kBFloat16},
    {"I32", 32, at::kInt},
    {"U32", 32, at::kUInt32},
    {"F32", 32, at::kFloat},
    {"F64", 64, at::kDouble},
    {"I64", 64, at::kLong},
    {"U64", 64, at::kUInt64},
    {"C64", 64, at::kComplexFloat},
    {"F4", 4, std::nullopt},
    {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},
}};

}  // namespace

const SafetensorsDtype* safetensors_dtype(std::string_view name) {
  for (const SafetensorsDtype& known : kDtypes) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

const SafetensorsDtype* safetensors_dtype(at::ScalarType dtype) {
  for (const SafetensorsDtype& known : kDtypes) {
    if (known.dtype == dtype) return &known;
  }
  return nullptr;
}

std::string safetensors_dtype_names() {
  std::string names;
  for (const SafetensorsDtype& known : kDtypes) {
    if (!names.empty()) names += ", ";
    names += known.name;
  }
  return names;
}

}  // namespace compress::detail
