// Words, numbers and quoted names of the text form.

#include "compress/graph/lexer.h"

#include "compress/graph/dtype_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace compress::text {
namespace {

constexpr std::array<std::string_view, 9> kDeviceTypes = {
    "cpu", "cuda", "meta", "mps", "xpu", "hpu", "xla", "mtia", "privateuseone"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '.' ||
         c == '/' || c == '-' || c == '+';
}

bool is_device_type(std::string_view word) {
  return std::find(kDeviceTypes.begin(), kDeviceTypes.end(), word) != kDeviceTypes.end();
}

std::optional<c10::Device> find_device(std::string_view word) {
  const size_t colon = word.find(':');
  const std::string_view type = word.substr(0, colon);
  if (!is_device_type(type)) return std::nullopt;
  if (colon == std::string_view::npos) return c10::Device(std::string(word));
  int index = 0;
  const char* const end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data() + colon + 1, end, index);
  const bool canonical = word[colon + 1] != '0' || word.size() == colon + 2;
  if (error != std::errc() || stop != end || index > 127 || !canonical) return std::nullopt;
  return c10::Device(std::string(word));
}

bool is_integer(std::string_view word) {
  const size_t start = word.starts_with('-') ? 1 : 0;
  return word.size() > start && std::all_of(word.begin() + start, word.end(), is_digit);
}

bool is_plain_word(std::string_view name) {
  if (name.empty() || name.front() == '-' || name.front() == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) { return is_word_char(c) && c != '+'; });
}

void append_utf8(std::string& text, uint32_t code) {
  if (code < 0x80) {
    text += static_cast<char>(code);
    return;
  }
  if (code < 0x800) {
    text += static_cast<char>(0xC0 | (code >> 6));
  } else {
    if (code < 0x10000) {
      text += static_cast<char>(0xE0 | (code >> 12));
    } else {
      text += static_cast<char>(0xF0 | (code >> 18));
      text += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    }
    text += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
  }
  text += static_cast<char>(0x80 | (code & 0x3F));
}

}  // namespace

void append_name(std::string& text, std::string_view name) {
  if (is_number(name) || find_constant(name)) {
    text += '%';
    append_quoted(text, name);
  } else {
    append_path(text, name);
  }
}

void append_path(std::string& text, std::string_view path) {
  if (is_plain_word(path)) {
    text += path;
  } else {
    text += '%';
    append_quoted(text, path);
  }
}

void append_quoted(std::string& text, std::string_view string) {
  text += '"';
  for (const char c : string) {
    switch (c) {
      case '"':
        text += "\\\"";
        break;
      case '\\':
        text += "\\\\";
        break;
      case '\n':
        text += "\\n";
        break;
      case '\r':
        text += "\\r";
        break;
      case '\t':
        text += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          text += fmt::format("\\u{:04x}", static_cast<int>(c));
        } else {
          text += c;
        }
    }
  }
  text += '"';
}

void append_int(std::string& text, int64_t number) {
  char buffer[24];
  text.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, number).ptr);
}

void append_double(std::string& text, double number) {
  if (std::isnan(number)) {
    text += "nan";
    return;
  }
  char buffer[32];
  const char* const end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  text += shortest;
  if (is_integer(shortest)) text += ".0";
}

bool is_number(std::string_view word) {
  const std::string_view digits = word.starts_with('-') ? word.substr(1) : word;
  if (digits == "inf" || digits == "nan") return true;
  if (digits.empty() || !(is_digit(digits[0]) || (digits.size() > 1 && digits[0] == '.'))) {
    return false;
  }
  double number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, number);
  return error != std::errc::invalid_argument && stop == end;
}

std::optional<Argument> read_number(std::string_view word) {
  const char* const end = word.data() + word.size();
  if (is_integer(word)) {
    int64_t number = 0;
    const auto [stop, error] = std::from_chars(word.data(), end, number);
    return error == std::errc() ? std::optional<Argument>(number) : std::nullopt;
  }
  double number = 0;
  const auto [stop, error] = std::from_chars(word.data(), end, number);
  return error == std::errc() ? std::optional<Argument>(number) : std::nullopt;
}

std::optional<Argument> find_constant(std::string_view word) {
  if (word == "none") return Argument();
  if (word == "true") return Argument(true);
  if (word == "false") return Argument(false);
  if (const auto dtype = find_dtype(word)) return Argument(*dtype);
  if (const auto layout = find_layout(word)) return Argument(*layout);
  if (const auto format = find_memory_format(word)) return Argument(*format);
  if (const auto device = find_device(word)) return Argument(*device);
  return std::nullopt;
}

Token Lexer::following() const {
  Lexer ahead = *this;
  ahead.advance();
  return ahead.token_;
}

Token Lexer::take() {
  Token taken = std::move(token_);
  advance();
  return taken;
}

void Lexer::skip_space() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    const bool starts_line = position_ == 0 || text_[position_ - 1] == '\n';
    const char next = position_ + 1 < text_.size() ? text_[position_ + 1] : '\n';
    if (c == ' ' || c == '\t' || c == '\r' || (c == '\n' && depth_ > 0)) {
      ++position_;
    } else if (c == '#' && (starts_line || next == ' ' || next == '\n' || next == '\r')) {
      position_ = std::min(text_.find('\n', position_), text_.size());
    } else {
      return;
    }
  }
}

void Lexer::advance() {
  skip_space();
  token_.offset = position_;
  token_.text.clear();
  if (position_ == text_.size()) {
    token_.kind = Token::Kind::kEnd;
    return;
  }
  const char c = text_[position_];
  const size_t start = position_;
  const auto peek = [&](size_t at) { return at < text_.size() ? text_[at] : '\0'; };
  if (is_word_char(c)) {
    while (is_word_char(peek(position_)) || peek(position_) == ':') {
      if (text_[position_] != ':') {
        ++position_;
      } else if (peek(position_ + 1) == ':') {
        position_ += 2;
      } else if (is_digit(peek(position_ + 1)) &&
                 is_device_type(text_.substr(start, position_ - start))) {
        ++position_;
      } else {
        break;
      }
    }
    token_.kind = Token::Kind::kWord;
    token_.text = text_.substr(start, position_ - start);
  } else if (c == '"' || (c == '%' && peek(position_ + 1) == '"')) {
    position_ += c == '%' ? 2 : 1;
    token_.kind = c == '%' ? Token::Kind::kQuotedName : Token::Kind::kString;
    token_.text = read_quoted();
  } else if (c == '#') {
    ++position_;
    while (is_digit(peek(position_)) || (peek(position_) >= 'a' && peek(position_) <= 'f')) {
      ++position_;
    }
    token_.kind = Token::Kind::kDigest;
    token_.text = text_.substr(start + 1, position_ - start - 1);
    if (token_.text.empty()) fail(start, "found `#`, expected a digest such as `#c0ffee`");
  } else if (c == '\n') {
    ++position_;
    token_.kind = Token::Kind::kNewline;
  } else if (std::string_view("()[],=:@?").find(c) != std::string_view::npos) {
    ++position_;
    token_.kind = Token::Kind::kSymbol;
    token_.text = c;
  } else {
    fail(start,
         c >= 0x20 && c < 0x7F
             ? fmt::format("found `{}`, which starts nothing known here", c)
             : fmt::format("found the byte {:#04x}; names beyond ASCII are written %\"name\"",
                           static_cast<unsigned char>(c)));
  }
}

std::string Lexer::read_quoted() {
  std::string decoded;
  while (true) {
    if (position_ >= text_.size() || text_[position_] == '\n') {
      fail(token_.offset, "found a string without its closing quote");
    }
    const char c = text_[position_++];
    if (c == '"') return decoded;
    if (c == '\\') {
      read_escape(decoded);
    } else {
      decoded += c;
    }
  }
}

void Lexer::read_escape(std::string& decoded) {
  const size_t start = position_ - 1;
  const char c = position_ < text_.size() ? text_[position_++] : '\0';
  constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
  if (c != 'u') {
    const size_t letter = c == '\0' ? std::string_view::npos : kLetters.find(c);
    if (letter == std::string_view::npos) fail(start, "found an escape that JSON does not have");
    decoded += kMeanings[letter];
    return;
  }
  uint32_t code = read_hex4();
  if (code >= 0xD800 && code < 0xDC00 && text_.substr(position_, 2) == "\\u") {
    position_ += 2;
    const uint32_t low = read_hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail(start, "found half of a surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xD800 && code < 0xE000) {
    fail(start, "found half of a surrogate pair");
  }
  append_utf8(decoded, code);
}

uint32_t Lexer::read_hex4() {
  uint32_t code = 0;
  const std::string_view digits = text_.substr(std::min(position_, text_.size()), 4);
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, code, 16);
  if (digits.size() != 4 || error != std::errc() || stop != end) {
    fail(position_, "found an escape \\u without four hexadecimal digits");
  }
  position_ += 4;
  return code;
}

std::vector<std::string_view> Lexer::take_dims() {
  std::vector<std::string_view> pieces;
  size_t start = token_.offset + 1;
  int nesting = 0;
  const auto push = [&](size_t end) {
    std::string_view piece = text_.substr(start, end - start);
    while (!piece.empty() && (piece.front() == ' ' || piece.front() == '\t'))
      piece.remove_prefix(1);
    while (!piece.empty() && (piece.back() == ' ' || piece.back() == '\t')) piece.remove_suffix(1);
    pieces.push_back(piece);
    start = end + 1;
  };
  for (size_t i = start;; ++i) {
    if (i >= text_.size() || text_[i] == '\n') fail(token_.offset, "found `[` without its `]`");
    if (text_[i] == '(') ++nesting;
    if (text_[i] == ')') --nesting;
    if (text_[i] == ',' && nesting == 0) push(i);
    if (text_[i] != ']') continue;
    push(i);
    if (pieces.size() == 1 && pieces[0].empty()) pieces.clear();
    position_ = i + 1;
    advance();
    return pieces;
  }
}

void Lexer::fail(size_t offset, const std::string& message, const std::string& hint) const {
  const std::string_view before = text_.substr(0, std::min(offset, text_.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t line_start = before.rfind('\n') + 1;  // npos + 1 == 0
  throw Error(ErrorCode::kBadFile, message,
              fmt::format("line {}, column {}", line, before.size() - line_start + 1), hint);
}

void Lexer::fail_expected(std::string_view expected) const {
  std::string found;
  switch (token_.kind) {
    case Token::Kind::kEnd:
      found = "the end of the text";
      break;
    case Token::Kind::kNewline:
      found = "the end of the line";
      break;
    case Token::Kind::kString:
      found = fmt::format("the string \"{:.40}\"", token_.text);
      break;
    case Token::Kind::kDigest:
      found = fmt::format("`#{:.40}`", token_.text);
      break;
    default:
      found = fmt::format("`{:.40}`", token_.text);
  }
  fail(token_.offset, fmt::format("found {}, expected {}", found, expected));
}

}  // namespace compress::text
