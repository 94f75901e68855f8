// NumPy's .npy files: a magic number, a Python dictionary as text, the elements.
//
// The format is numpy.lib.format's. The dictionary is read by a parser of just its three entries:
// {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.

#include "compress/data/npy.h"

#include "compress/error.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace compress {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
// numpy refuses longer headers too: they would be structures, which we do not read.
constexpr uint64_t kMaxHeaderBytes = 10000;

struct Header {
  std::string dtype;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

// Walks over the dictionary; every failure names the byte in the file.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, uint64_t offset, const std::string& name)
      : text_(text), offset_(offset), name_(name) {}

  Header parse() {
    Header header;
    bool has_dtype = false, has_order = false, has_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !has_dtype) {
        has_dtype = true;
        header.dtype = string();
      } else if (key == "fortran_order" && !has_order) {
        has_order = true;
        header.fortran_order = boolean();
      } else if (key == "shape" && !has_shape) {
        has_shape = true;
        header.shape = tuple();
      } else {
        fail("expected the keys descr, fortran_order and shape, each once");
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (position_ != text_.size()) fail("text after the header's dictionary");
    if (!has_dtype || !has_order || !has_shape) fail("expected descr, fortran_order and shape");
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw Error(ErrorCode::kBadFile, "not a sound .npy header: " + message,
                fmt::format("{}: byte {}", name_, offset_ + position_));
  }
  void skip_space() {
    while (position_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[position_]))) {
      ++position_;
    }
  }
  bool accept(char wanted) {
    skip_space();
    if (position_ >= text_.size() || text_[position_] != wanted) return false;
    ++position_;
    return true;
  }
  void expect(char wanted) {
    if (!accept(wanted)) fail(fmt::format("expected `{}`", wanted));
  }
  std::string string() {
    skip_space();
    if (position_ < text_.size() && text_[position_] == '[') {
      throw Error(ErrorCode::kUnsupported, "an array of structures, expected plain numbers", name_);
    }
    const char quote = position_ < text_.size() ? text_[position_] : '\0';
    if (quote != '\'' && quote != '"') fail("expected a string");
    const size_t end = text_.find(quote, position_ + 1);
    if (end == std::string_view::npos) fail("a string without an end");
    std::string value(text_.substr(position_ + 1, end - position_ - 1));
    position_ = end + 1;
    return value;
  }
  bool boolean() {
    skip_space();
    for (const std::string_view word : {"True", "False"}) {
      if (text_.substr(position_, word.size()) == word) {
        position_ += word.size();
        return word == "True";
      }
    }
    fail("expected True or False");
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> values;
    expect('(');
    while (!accept(')')) {
      values.push_back(integer());
      if (values.size() > 32) fail("more than 32 dimensions");
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return values;
  }
  int64_t integer() {
    skip_space();
    int64_t value = 0;
    const size_t begin = position_;
    while (position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '9') {
      // 2^53 elements are beyond any file, and leave room for the next digit.
      if (value > (int64_t{1} << 53)) fail("a size that is too large");
      value = value * 10 + (text_[position_++] - '0');
    }
    if (position_ == begin) fail("expected a size");
    return value;
  }

  std::string_view text_;
  uint64_t offset_;
  const std::string& name_;
  size_t position_ = 0;
};

std::optional<at::ScalarType> scalar_type(std::string_view dtype) {
  static constexpr std::pair<std::string_view, at::ScalarType> kTypes[] = {
      {"|b1", at::kBool},         {"|i1", at::kChar},          {"|u1", at::kByte},
      {"<i2", at::kShort},        {"<i4", at::kInt},           {"<i8", at::kLong},
      {"<f2", at::kHalf},         {"<f4", at::kFloat},         {"<f8", at::kDouble},
      {"<c8", at::kComplexFloat}, {"<c16", at::kComplexDouble}};
  for (const auto& [name, type] : kTypes) {
    if (name == dtype ||
        (name[0] == '|' && dtype.size() == 3 && dtype.substr(1) == name.substr(1))) {
      return type;
    }
  }
  return std::nullopt;
}

// The bytes that the elements take; nothing if a tensor cannot have them. Strides must fit, too,
// where a dimension of 0 makes them count for nothing.
std::optional<uint64_t> bytes_of(const std::vector<int64_t>& shape, uint64_t item) {
  constexpr uint64_t kMost = uint64_t{1} << 62;
  uint64_t bytes = item;
  bool is_empty = false;
  for (const int64_t size : shape) {
    is_empty = is_empty || size == 0;
    const auto factor = static_cast<uint64_t>(std::max<int64_t>(size, 1));
    if (bytes > kMost / factor) return std::nullopt;
    bytes *= factor;
  }
  return is_empty ? 0 : bytes;
}

struct Location {
  Header header;
  uint64_t data = 0;  // offset of the elements
};

Location read_header(MappedFile& file) {
  if (file.size() < 10 || file.text(0, kMagic.size()) != kMagic) {
    throw Error(ErrorCode::kBadFile, "not a .npy file, by its first bytes", file.name());
  }
  const auto byte = [&](uint64_t at) { return static_cast<uint64_t>(file.bytes()[at]); };
  const uint64_t version = byte(6);
  if (version < 1 || version > 3) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("version {} of the .npy format, expected 1 to 3", version),
                file.name() + ": byte 6");
  }
  const uint64_t begin = version == 1 ? 10 : 12;
  uint64_t length = byte(8) | byte(9) << 8;
  if (version > 1) {
    if (file.size() < begin) {
      throw Error(ErrorCode::kBadFile, "the file ends within its header", file.name());
    }
    length |= byte(10) << 16 | byte(11) << 24;
  }
  if (length > kMaxHeaderBytes || begin + length > file.size()) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("a header of {} bytes in a file of {} (at most {} are read)", length,
                            file.size(), kMaxHeaderBytes),
                file.name() + ": byte 8");
  }
  return {HeaderParser(file.text(begin, length), begin, file.name()).parse(), begin + length};
}

}  // namespace

at::Tensor read_npy(const std::filesystem::path& path) { return read_npy(MappedFile::open(path)); }

at::Tensor read_npy(const std::shared_ptr<MappedFile>& file) {
  const Location found = read_header(*file);
  const Header& header = found.header;
  const std::optional<at::ScalarType> type = scalar_type(header.dtype);
  if (!type) {
    throw Error(ErrorCode::kUnsupported, fmt::format("elements of type `{}`", header.dtype),
                file->name(), "save it as float32, int64 or uint8, little-endian");
  }
  const uint64_t available = file->size() - found.data;
  const auto bytes = bytes_of(header.shape, c10::elementSize(*type));
  if (bytes != available) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("{} bytes of elements, expected those of shape ({}) and type {}",
                            available, fmt::join(header.shape, ", "), header.dtype),
                fmt::format("{}: byte {}", file->name(), found.data));
  }
  std::vector<int64_t> shape = header.shape;
  if (available == 0) return at::empty(shape, *type);
  if (header.fortran_order) std::reverse(shape.begin(), shape.end());
  const at::Tensor elements = file->tensor(found.data, *type, shape);
  if (!header.fortran_order) return elements;
  std::vector<int64_t> reversed(shape.size());
  for (size_t d = 0; d < shape.size(); ++d) {
    reversed[d] = static_cast<int64_t>(shape.size() - 1 - d);
  }
  return elements.permute(reversed);
}

}  // namespace compress
