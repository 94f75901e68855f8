// Strict parsing of JSON with positions in its errors.

#include "compress/json.h"

#include "compress/error.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

namespace compress {
namespace {

// No recipe needs more; nlohmann's printer recurses.
constexpr int kDeepest = 64;

// Follows the parser to tell keys that come twice and nesting that is too deep.
class Watcher {
 public:
  explicit Watcher(const std::string& file) : file_(file) {}

  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    const bool opens = event == Event::object_start || event == Event::array_start;
    if (opens || event == Event::value) ++levels_.back().elements;
    if (opens) {
      if (depth >= kDeepest) fail(fmt::format("nested deeper than {} levels", kDeepest), "");
      levels_.push_back({event == Event::array_start, 0, {}, {}});
    } else if (event == Event::object_end || event == Event::array_end) {
      levels_.pop_back();
    } else if (event == Event::key) {
      Level& level = levels_.back();
      level.key = parsed.get<std::string>();
      if (!level.keys.insert(level.key).second) {
        fail(fmt::format("`{}` comes twice", level.key), "remove one of them");
      }
    }
    return true;
  }

 private:
  struct Level {
    bool is_array = false;
    size_t elements = 0;  // begun so far
    std::string key;
    std::set<std::string> keys;
  };

  [[noreturn]] void fail(const std::string& message, const std::string& hint) const {
    std::string pointer;
    for (size_t i = 1; i < levels_.size() && i <= 8; ++i) {
      const Level& level = levels_[i];
      pointer = level.is_array ? join_pointer(pointer, level.elements - 1)
                               : join_pointer(pointer, level.key);
    }
    throw Error(ErrorCode::kInvalidArgument, message,
                file_.empty() ? pointer : fmt::format("{}: {}", file_, pointer), hint);
  }

  const std::string& file_;
  std::vector<Level> levels_{Level{}};
};

std::pair<size_t, size_t> line_and_column(std::string_view text, size_t byte) {
  const std::string_view before = text.substr(0, std::min(byte, text.size()));
  const size_t line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t start = before.rfind('\n');
  return {line, before.size() - (start == std::string_view::npos ? 0 : start + 1) + 1};
}

// What to do about the character at which the parser stopped.
std::string syntax_hint(std::string_view text, size_t byte) {
  const char found = byte < text.size() ? text[byte] : '\0';
  const size_t last =
      byte == 0 ? std::string_view::npos : text.find_last_not_of(" \t\r\n", byte - 1);
  const char previous = last == std::string_view::npos ? '\0' : text[last];
  if (found == '/' || found == '#') return "JSON has no comments";
  if ((found == '}' || found == ']') && previous == ',') return "remove the comma in front";
  if (found == '\'') return "strings take double quotes";
  if (found == '\0') return "the text ends too early";
  if (found == '"') return "a comma is missing in front?";
  return "";
}

}  // namespace

Json parse_json(std::string_view text, const std::string& file) {
  try {
    // By reference: the parser copies its callback.
    Watcher watcher(file);
    Json json = Json::parse(text, [&watcher](int depth, Json::parse_event_t event, Json& parsed) {
      return watcher(depth, event, parsed);
    });
    // The parser takes a zero byte for the end.
    if (const size_t zero = text.find('\0'); zero != text.npos) {
      const auto [line, column] = line_and_column(text, zero);
      throw Error(
          ErrorCode::kInvalidArgument, "not valid JSON: a zero byte",
          fmt::format("{}line {}, column {}", file.empty() ? "" : file + ": ", line, column));
    }
    return json;
  } catch (const Json::parse_error& error) {
    const size_t byte = error.byte == 0 ? 0 : error.byte - 1;
    const auto [line, column] = line_and_column(text, byte);
    std::string reason = error.what();
    const size_t unexpected = reason.find(" - ");
    reason = unexpected == std::string::npos ? "" : ": " + reason.substr(unexpected + 3);
    throw Error(ErrorCode::kInvalidArgument, "not valid JSON" + reason,
                fmt::format("{}line {}, column {}", file.empty() ? "" : file + ": ", line, column),
                syntax_hint(text, byte));
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("not valid JSON: {}", error.what()), file);
  }
}

std::string join_pointer(const std::string& pointer, std::string_view key) {
  std::string joined = pointer + "/";
  for (const char c : key) {
    if (c == '~') {
      joined += "~0";
    } else if (c == '/') {
      joined += "~1";
    } else {
      joined += c;
    }
  }
  return joined;
}

std::string join_pointer(const std::string& pointer, size_t index) {
  return fmt::format("{}/{}", pointer, index);
}

std::string brief(const Json& value) {
  constexpr size_t kLongest = 48;
  // Bytes that are not UTF-8 are replaced: a message must never throw.
  const std::string text = value.is_structured() && value.size() > 12
                               ? std::string(kLongest + 1, ' ')
                               : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() <= kLongest) return text;
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_object()) return "an object";
  return text.substr(0, kLongest) + (value.is_string() ? "...\"" : "...");
}

}  // namespace compress
