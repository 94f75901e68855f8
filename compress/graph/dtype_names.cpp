// Short names of dtypes, layouts and memory formats in text.

#include "compress/graph/dtype_names.h"

#include <array>
#include <utility>

namespace compress {
namespace {

using c10::ScalarType;

constexpr std::array<std::pair<ScalarType, std::string_view>, 22> kDtypes{{
    {ScalarType::Float, "f32"},
    {ScalarType::Double, "f64"},
    {ScalarType::Half, "f16"},
    {ScalarType::BFloat16, "bf16"},
    {ScalarType::Char, "i8"},
    {ScalarType::Short, "i16"},
    {ScalarType::Int, "i32"},
    {ScalarType::Long, "i64"},
    {ScalarType::Byte, "u8"},
    {ScalarType::UInt16, "u16"},
    {ScalarType::UInt32, "u32"},
    {ScalarType::UInt64, "u64"},
    {ScalarType::Bool, "bool"},
    {ScalarType::Float8_e4m3fn, "f8_e4m3fn"},
    {ScalarType::Float8_e5m2, "f8_e5m2"},
    {ScalarType::Float8_e4m3fnuz, "f8_e4m3fnuz"},
    {ScalarType::Float8_e5m2fnuz, "f8_e5m2fnuz"},
    {ScalarType::Float8_e8m0fnu, "f8_e8m0fnu"},
    {ScalarType::Float4_e2m1fn_x2, "f4_e2m1fn_x2"},
    {ScalarType::ComplexHalf, "c32"},
    {ScalarType::ComplexFloat, "c64"},
    {ScalarType::ComplexDouble, "c128"},
}};

constexpr std::array<std::pair<c10::Layout, std::string_view>, 8> kLayouts{{
    {c10::Layout::Strided, "strided"},
    {c10::Layout::Sparse, "sparse_coo"},
    {c10::Layout::SparseCsr, "sparse_csr"},
    {c10::Layout::SparseCsc, "sparse_csc"},
    {c10::Layout::SparseBsr, "sparse_bsr"},
    {c10::Layout::SparseBsc, "sparse_bsc"},
    {c10::Layout::Mkldnn, "mkldnn_layout"},
    {c10::Layout::Jagged, "jagged"},
}};

constexpr std::array<std::pair<c10::MemoryFormat, std::string_view>, 4> kMemoryFormats{{
    {c10::MemoryFormat::Contiguous, "contiguous_format"},
    {c10::MemoryFormat::Preserve, "preserve_format"},
    {c10::MemoryFormat::ChannelsLast, "channels_last"},
    {c10::MemoryFormat::ChannelsLast3d, "channels_last_3d"},
}};

template <class Table, class Key>
std::string_view name_in(const Table& table, Key key, std::string_view otherwise) {
  for (const auto& [candidate, name] : table) {
    if (candidate == key) return name;
  }
  return otherwise;
}

template <class Key, size_t count>
std::optional<Key> key_in(const std::array<std::pair<Key, std::string_view>, count>& table,
                          std::string_view name) {
  for (const auto& [key, candidate] : table) {
    if (candidate == name) return key;
  }
  return std::nullopt;
}

}  // namespace

std::string_view dtype_name(ScalarType dtype) { return name_in(kDtypes, dtype, toString(dtype)); }

std::optional<ScalarType> find_dtype(std::string_view name) {
  if (const auto found = key_in(kDtypes, name)) return found;
  // LibTorch's names of the others are all capitalised.
  if (name.empty() || name.front() < 'A' || name.front() > 'Z') return std::nullopt;
  for (int i = 0; i < static_cast<int>(ScalarType::NumOptions); ++i) {
    const auto dtype = static_cast<ScalarType>(i);
    if (dtype_name(dtype) == name && dtype != ScalarType::Undefined) return dtype;
  }
  return std::nullopt;
}

std::string_view layout_name(c10::Layout layout) { return name_in(kLayouts, layout, "strided"); }

std::optional<c10::Layout> find_layout(std::string_view name) { return key_in(kLayouts, name); }

std::string_view memory_format_name(c10::MemoryFormat format) {
  return name_in(kMemoryFormats, format, "contiguous_format");
}

std::optional<c10::MemoryFormat> find_memory_format(std::string_view name) {
  return key_in(kMemoryFormats, name);
}

}  // namespace compress
