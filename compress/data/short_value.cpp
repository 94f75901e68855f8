// Values in the short form of data entries on the command line.

#include "compress/data/short_value.h"

#include "compress/error.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>

namespace compress::detail {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kValueEnds = ",[]{}\" \t\r\n";
constexpr std::string_view kKeyEnds = ",[]{}\"=: \t\r\n";
constexpr int kDeepest = 64;  // as for recipes in JSON (compress/json.cpp)

// A recursive reader of lists, objects and scalars.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Json whole() {
    Json result = value();
    skip_space();
    if (position_ < text_.size()) fail("the end");
    return result;
  }

 private:
  [[noreturn]] void fail(std::string_view expected) const {
    const std::string found =
        position_ < text_.size() ? fmt::format("`{}`", text_[position_]) : std::string("the end");
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} in the place of {} in `{}`", found, expected, text_.substr(0, 60)),
                "data", "a list looks like [crop,flip], an object like {size=8}");
  }

  char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }
  void skip_space() {
    position_ = std::min(text_.find_first_not_of(kSpace, position_), text_.size());
  }
  bool take(char c) {
    skip_space();
    if (peek() != c) return false;
    ++position_;
    return true;
  }

  std::string_view word(std::string_view ends, std::string_view what) {
    const size_t end = std::min(text_.find_first_of(ends, position_), text_.size());
    if (end == position_) fail(what);
    const std::string_view found = text_.substr(position_, end - position_);
    position_ = end;
    return found;
  }

  Json quoted() {
    const size_t start = position_++;
    while (peek() != '"') {
      if (position_ >= text_.size()) fail("a closing quote");
      position_ += peek() == '\\' ? 2 : 1;
    }
    ++position_;
    const Json found = Json::parse(text_.substr(start, position_ - start), nullptr, false);
    if (found.is_discarded()) fail("a text with sound escapes");
    return found;
  }

  Json value() {
    skip_space();
    if (peek() == '"') return quoted();
    if (peek() != '[' && peek() != '{') {
      const std::string_view text = word(kValueEnds, "a value");
      Json scalar = Json::parse(text, nullptr, false);
      return scalar.is_discarded() ? Json(text) : scalar;
    }
    if (++depth_ > kDeepest) fail("less nesting");
    Json found = peek() == '[' ? list() : object();
    --depth_;
    return found;
  }

  Json list() {
    Json found = Json::array();
    take('[');
    if (take(']')) return found;
    do {
      found.push_back(value());
    } while (take(','));
    if (!take(']')) fail("`,` or `]`");
    return found;
  }

  Json object() {
    Json found = Json::object();
    take('{');
    if (take('}')) return found;
    do {
      skip_space();
      const std::string key =
          peek() == '"' ? quoted().get<std::string>() : std::string(word(kKeyEnds, "an option"));
      if (!take('=') && !take(':')) fail("`=`");
      if (found.contains(key)) {
        throw Error(ErrorCode::kInvalidArgument, fmt::format("`{}` comes twice", key), "data");
      }
      found[key] = value();
    } while (take(','));
    if (!take('}')) fail("`,` or `}`");
    return found;
  }

  std::string_view text_;
  size_t position_ = 0;
  int depth_ = 0;
};

}  // namespace

Json short_value(std::string_view text) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_discarded()) return json;
  const bool bracketed = !text.empty() && (text.front() == '[' || text.front() == '{');
  return bracketed ? Reader(text).whole() : Json(text);
}

}  // namespace compress::detail
