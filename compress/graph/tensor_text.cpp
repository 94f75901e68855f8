// The elements of small tensors in the text form.

#include "compress/graph/tensor_text.h"

#include "compress/graph/dtype_names.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

namespace compress::text {
namespace {

template <class Number>
constexpr bool kIsSmallFloat = !std::is_arithmetic_v<Number>;

// Calls `visit` with a zero of the C++ type of a real dtype; false for the other dtypes.
template <class Visit>
bool visit_dtype(c10::ScalarType dtype, Visit&& visit) {
  switch (dtype) {
    case c10::kFloat:
      visit(float{});
      return true;
    case c10::kDouble:
      visit(double{});
      return true;
    case c10::kHalf:
      visit(c10::Half{});
      return true;
    case c10::kBFloat16:
      visit(c10::BFloat16{});
      return true;
    case c10::kChar:
      visit(int8_t{});
      return true;
    case c10::kShort:
      visit(int16_t{});
      return true;
    case c10::kInt:
      visit(int32_t{});
      return true;
    case c10::kLong:
      visit(int64_t{});
      return true;
    case c10::kByte:
      visit(uint8_t{});
      return true;
    case c10::kUInt16:
      visit(uint16_t{});
      return true;
    case c10::kUInt32:
      visit(uint32_t{});
      return true;
    case c10::kUInt64:
      visit(uint64_t{});
      return true;
    case c10::kBool:
      visit(bool{});
      return true;
    case c10::kFloat8_e4m3fn:
      visit(c10::Float8_e4m3fn{});
      return true;
    case c10::kFloat8_e5m2:
      visit(c10::Float8_e5m2{});
      return true;
    case c10::kFloat8_e8m0fnu:
      visit(c10::Float8_e8m0fnu{});
      return true;
    default:
      return false;
  }
}

template <class Number>
void append_number(std::string& text, Number number) {
  char buffer[40];
  char* const end = buffer + sizeof buffer;
  if constexpr (std::is_same_v<Number, bool>) {
    text += number ? "true" : "false";
  } else if constexpr (std::is_integral_v<Number>) {
    text.append(buffer, std::to_chars(buffer, end, number).ptr);
  } else if (std::isnan(static_cast<double>(number))) {
    text += "nan";
  } else if constexpr (kIsSmallFloat<Number>) {
    // The fewest digits that round to the same 8 or 16 bits; 9 always do.
    const auto wide = static_cast<float>(number);
    if (wide == std::trunc(wide) && std::abs(wide) < 1e6f) {  // 65504, not 6.55e+04
      text.append(buffer, std::to_chars(buffer, end, wide, std::chars_format::fixed).ptr);
      return;
    }
    for (int digits = 1; digits <= 9; ++digits) {
      char* stop = std::to_chars(buffer, end, wide, std::chars_format::general, digits).ptr;
      float back = 0;
      std::from_chars(buffer, stop, back);
      if (static_cast<float>(static_cast<Number>(back)) == wide || digits == 9) {
        text.append(buffer, stop);
        return;
      }
    }
  } else {
    text.append(buffer, std::to_chars(buffer, end, number).ptr);
  }
}

template <class Number>
void append_nested(std::string& text, const Number*& next, c10::IntArrayRef sizes) {
  if (sizes.empty()) {
    append_number(text, *next++);
    return;
  }
  text += '[';
  for (int64_t i = 0; i < sizes[0]; ++i) {
    if (i > 0) text += ", ";
    append_nested(text, next, sizes.slice(1));
  }
  text += ']';
}

template <class Number>
bool read_as(std::string_view word, Number& number) {
  const char* const end = word.data() + word.size();
  if constexpr (std::is_same_v<Number, bool>) {
    number = word == "true" || word == "1";
    return number || word == "false" || word == "0";
  } else if constexpr (kIsSmallFloat<Number>) {
    float wide = 0;
    const auto [stop, error] = std::from_chars(word.data(), end, wide);
    number = static_cast<Number>(wide);
    const bool overflows = std::isfinite(wide) && !std::isfinite(static_cast<float>(number));
    return error == std::errc() && stop == end && !overflows;
  } else {
    const auto [stop, error] = std::from_chars(word.data(), end, number);
    return error == std::errc() && stop == end;
  }
}

// Reads lists into a vector first, so that a text cannot ask for more memory than it is long.
template <class Number>
class ElementReader {
 public:
  ElementReader(Lexer& lexer, c10::ScalarType dtype, const std::vector<int64_t>& sizes)
      : lexer_(lexer), dtype_(dtype), sizes_(sizes) {}

  void read(size_t dim) {
    if (dim == sizes_.size()) {
      read_element();
      return;
    }
    const size_t start = lexer_.token().offset;
    if (!lexer_.token().is_symbol('[')) lexer_.fail_expected("`[` of a list of elements");
    lexer_.enter();
    lexer_.advance();
    int64_t count = 0;
    while (!lexer_.token().is_symbol(']')) {
      if (count > 0) {
        if (!lexer_.token().is_symbol(',')) lexer_.fail_expected("`,` or `]`");
        lexer_.advance();
      }
      read(dim + 1);
      ++count;
    }
    lexer_.leave();
    lexer_.advance();
    const bool is_empty_tensor = dim == 0 && count == 0;
    if (count != sizes_[dim] && !(is_empty_tensor && has_no_elements())) {
      lexer_.fail(start, fmt::format("found a list of {} in dimension {}, expected {}", count, dim,
                                     sizes_[dim]));
    }
  }

  std::vector<Number> elements;

 private:
  bool has_no_elements() const {
    return std::find(sizes_.begin(), sizes_.end(), 0) != sizes_.end();
  }

  void read_element() {
    Number number{};
    const Token& token = lexer_.token();
    if (token.kind != Token::Kind::kWord || !read_as(token.text, number)) {
      lexer_.fail_expected(fmt::format("an element of dtype {}", dtype_name(dtype_)));
    }
    elements.push_back(number);
    lexer_.advance();
  }

  Lexer& lexer_;
  c10::ScalarType dtype_;
  const std::vector<int64_t>& sizes_;
};

}  // namespace

bool prints_elements(const at::Tensor& tensor) {
  return tensor.numel() <= kMaxPrintedElements && visit_dtype(tensor.scalar_type(), [](auto) {});
}

void append_elements(std::string& text, const at::Tensor& tensor) {
  if (tensor.numel() == 0) {
    text += "[]";  // the sizes stand beside it, and may hold a million empty lists
    return;
  }
  const at::Tensor plain = tensor.detach().cpu().contiguous();
  visit_dtype(plain.scalar_type(), [&](auto zero) {
    const auto* next = static_cast<const decltype(zero)*>(plain.const_data_ptr());
    append_nested(text, next, plain.sizes());
  });
}

at::Tensor read_elements(Lexer& lexer, c10::ScalarType dtype, const std::vector<int64_t>& sizes) {
  at::Tensor tensor;
  const size_t start = lexer.token().offset;
  const bool known = visit_dtype(dtype, [&](auto zero) {
    using Number = decltype(zero);
    ElementReader<Number> reader(lexer, dtype, sizes);
    reader.read(0);
    tensor = at::empty(sizes, dtype);
    Number* out = static_cast<Number*>(tensor.mutable_data_ptr());
    for (const Number number : reader.elements) *out++ = number;
  });
  if (!known) {
    lexer.fail(start,
               fmt::format("found elements of dtype {}, expected a digest", dtype_name(dtype)));
  }
  return tensor;
}

}  // namespace compress::text
