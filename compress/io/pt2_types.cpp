// The numbers that stand for dtypes, layouts and memory formats in .pt2 files, and tensor metadata.

#include "compress/io/pt2_types.h"

#include "compress/error.h"
#include "compress/graph/size_expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace compress::pt2 {
namespace {

// torch/_export/serde/schema.py, schema version 8.20.
using c10::ScalarType;
constexpr std::array<std::pair<int64_t, ScalarType>, 21> kDtypes = {{
    {1, ScalarType::Byte},
    {2, ScalarType::Char},
    {3, ScalarType::Short},
    {4, ScalarType::Int},
    {5, ScalarType::Long},
    {6, ScalarType::Half},
    {7, ScalarType::Float},
    {8, ScalarType::Double},
    {9, ScalarType::ComplexHalf},
    {10, ScalarType::ComplexFloat},
    {11, ScalarType::ComplexDouble},
    {12, ScalarType::Bool},
    {13, ScalarType::BFloat16},
    {28, ScalarType::UInt16},
    {29, ScalarType::Float8_e4m3fn},
    {30, ScalarType::Float8_e5m2},
    {31, ScalarType::Float8_e4m3fnuz},
    {32, ScalarType::Float8_e5m2fnuz},
    {33, ScalarType::Float8_e8m0fnu},
    {34, ScalarType::UInt32},
    {35, ScalarType::UInt64},
}};
constexpr std::array<std::pair<int64_t, c10::Layout>, 7> kLayouts = {{
    {1, c10::kSparse},
    {2, c10::kSparseCsr},
    {3, c10::kSparseCsc},
    {4, c10::kSparseBsr},
    {5, c10::kSparseBsc},
    {6, c10::kMkldnn},
    {7, c10::kStrided},
}};
constexpr std::array<std::pair<int64_t, c10::MemoryFormat>, 4> kMemoryFormats = {{
    {1, c10::MemoryFormat::Contiguous},
    {2, c10::MemoryFormat::ChannelsLast},
    {3, c10::MemoryFormat::ChannelsLast3d},
    {4, c10::MemoryFormat::Preserve},
}};

template <class Table>
auto from_number(const Table& table, const JsonCursor& number, const char* what) {
  const int64_t wanted = number.integer();
  for (const auto& [code, meaning] : table) {
    if (code == wanted) return meaning;
  }
  number.fail(fmt::format("{} is the number of no {}", wanted, what));
}

template <class Table, class T>
std::optional<int64_t> to_number(const Table& table, T wanted) {
  for (const auto& [code, meaning] : table) {
    if (meaning == wanted) return code;
  }
  return std::nullopt;
}

// As for the text form of models.
constexpr size_t kMostDims = 64;

// Whether the text form of a model can hold `symbol` as one size.
bool is_printable_size(const std::string& symbol) {
  int nesting = 0;
  for (const char c : symbol) {
    nesting += c == '(' ? 1 : c == ')' ? -1 : 0;
    const bool ends_size = c == '[' || c == ']' || (c == ',' && nesting == 0);
    if (nesting < 0 || ends_size || static_cast<unsigned char>(c) <= ' ') return false;
  }
  const bool is_digit = !symbol.empty() && symbol[0] >= '0' && symbol[0] <= '9';
  return nesting == 0 && !symbol.empty() && symbol != "..." && !is_digit;
}

// A size that is not a number is written readably; what sympy says beyond our grammar stays as it
// is.
Dim read_expression(const JsonCursor& text, int64_t example) {
  std::string symbol = text.string();
  std::erase_if(symbol, [](char c) { return c == ' '; });
  if (const auto expression = parse_size_expression(text.string())) {
    if (expression->kind == SizeExpression::Kind::kNumber) return Dim(expression->number);
    symbol = print_readable(*expression);
    if (symbol != "...") return Dim(symbol, example);
  }
  if (!is_printable_size(symbol)) text.fail(fmt::format("`{:.40}` is not a size", symbol));
  return Dim(symbol, example);
}

}  // namespace

c10::ScalarType read_dtype(const JsonCursor& number) {
  return from_number(kDtypes, number, "dtype");
}
c10::Layout read_layout(const JsonCursor& number) {
  return from_number(kLayouts, number, "layout");
}
c10::MemoryFormat read_memory_format(const JsonCursor& number) {
  return from_number(kMemoryFormats, number, "memory format");
}

c10::Device read_device(const JsonCursor& device) {
  const std::string& type = device["type"].string();
  const int64_t index = device.has("index") ? device["index"].integer() : -1;
  if (index < -1 || index > 127) device.fail(fmt::format("there is no device number {}", index));
  try {
    return c10::Device(index < 0 ? type : fmt::format("{}:{}", type, index));
  } catch (const c10::Error&) {
    device.fail(fmt::format("`{}` is no device", type));
  }
}

int64_t dtype_number(c10::ScalarType dtype) {
  if (const auto number = to_number(kDtypes, dtype)) return *number;
  throw Error(ErrorCode::kUnsupported,
              fmt::format("a .pt2 file cannot hold {} tensors", c10::toString(dtype)));
}
int64_t layout_number(c10::Layout layout) { return to_number(kLayouts, layout).value_or(7); }
int64_t memory_format_number(c10::MemoryFormat format) {
  return to_number(kMemoryFormats, format).value_or(4);
}

Dim read_dim(const JsonCursor& size) {
  const auto [kind, value] = size.alternative();
  if (kind == "as_int") return Dim(value.integer());
  if (kind != "as_expr") size.fail(fmt::format("`{}` is no kind of size", kind));
  int64_t example = 0;
  if (value.has("hint")) {
    const JsonCursor hint = value["hint"];
    if (hint.is_integer()) {
      example = hint.integer();
    } else if (const auto [type, number] = hint.alternative(); type == "as_int") {
      example = number.integer();
    }
  }
  return read_expression(value["expr_str"], example);
}

TensorType read_tensor_type(const JsonCursor& meta) {
  TensorType type;
  type.dtype = read_dtype(meta["dtype"]);
  std::vector<Dim> sizes;
  int64_t elements = 1;
  for (const JsonCursor& size : meta["sizes"].elements()) {
    sizes.push_back(read_dim(size));
    const int64_t number = sizes.back().size;
    if (number < 0) size.fail("the size is negative");
    if (__builtin_mul_overflow(elements, std::max<int64_t>(number, 1), &elements)) {
      size.fail("the number of elements does not fit 64 bits");
    }
  }
  if (sizes.size() > kMostDims) meta.fail(fmt::format("{} dimensions", sizes.size()));
  type.sizes = std::move(sizes);
  return type;
}

TensorView read_tensor_view(const JsonCursor& meta) {
  const auto numbers = [](const JsonCursor& list) {
    std::vector<int64_t> values;
    for (const JsonCursor& element : list.elements()) {
      const Dim dim = read_dim(element);
      if (dim.is_symbolic()) element.fail("a stored tensor cannot have a symbolic size");
      values.push_back(dim.size);
    }
    return values;
  };
  TensorView view;
  view.dtype = read_dtype(meta["dtype"]);
  view.sizes = numbers(meta["sizes"]);
  view.strides = numbers(meta["strides"]);
  if (view.sizes.size() != view.strides.size()) {
    meta.fail(fmt::format("{} sizes but {} strides", view.sizes.size(), view.strides.size()));
  }
  view.storage_offset = read_dim(meta["storage_offset"]).size;
  if (read_layout(meta["layout"]) != c10::kStrided) {
    throw Error(ErrorCode::kUnsupported, "a tensor that is not strided", meta.where());
  }
  return view;
}

}  // namespace compress::pt2
