// The one-line form of a recipe, for logs, tests and the shell.

#include "compress/error.h"
#include "compress/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace compress {
namespace {

constexpr std::string_view kEnds = ",{}[]=\" \t\r\n";
// As for recipes in JSON (compress/json.cpp).
constexpr int kDeepest = 64;

// A recursive reader of: list of `id{options}`; objects `{key=value,...}`; lists; scalars.
class LineReader {
 public:
  explicit LineReader(std::string_view line) : line_(line) {}

  Json steps() {
    Json steps = Json::array();
    position_ = line_.find('\0');
    if (position_ != line_.npos) fail("a zero byte");
    position_ = 0;
    do {
      skip_space();
      const std::string id = word("the name of a pass");
      Json step = {{"pass", id}};
      skip_space();
      if (peek() == '{') {
        const Json options = object();
        if (options.contains("pass")) fail("`pass` is not an option");
        step.update(options);
      }
      steps.push_back(std::move(step));
      skip_space();
    } while (take(','));
    if (position_ < line_.size()) fail(fmt::format("`{}` is not a comma or the end", peek()));
    return steps;
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw Error(ErrorCode::kInvalidArgument, message,
                fmt::format("\"{}\", column {}", line_.substr(0, 60), position_ + 1),
                "a line looks like prune.magnitude{sparsity=0.5},fold.batch_norm");
  }

  char peek() const { return position_ < line_.size() ? line_[position_] : '\0'; }
  bool take(char c) {
    if (peek() != c) return false;
    ++position_;
    return true;
  }
  void skip_space() {
    while (position_ < line_.size() && std::string_view(" \t\r\n").find(peek()) != kEnds.npos) {
      ++position_;
    }
  }
  std::string found() const {
    return position_ < line_.size() ? fmt::format("`{}`", peek()) : std::string("the end");
  }

  std::string word(std::string_view what) {
    const size_t end = std::min(line_.find_first_of(kEnds, position_), line_.size());
    if (end == position_) fail(fmt::format("{} in the place of {}", found(), what));
    const std::string text(line_.substr(position_, end - position_));
    position_ = end;
    return text;
  }

  // The raw text of a JSON string, quotes included.
  Json quoted() {
    const size_t start = position_++;
    while (peek() != '"') {
      if (position_ >= line_.size()) fail("a text without its closing quote");
      position_ += peek() == '\\' ? 2 : 1;
    }
    ++position_;
    const Json text = Json::parse(line_.substr(start, position_ - start), nullptr, false);
    if (text.is_discarded()) fail("a text with a wrong escape or byte");
    return text;
  }

  Json object() {
    Json object = Json::object();
    if (++depth_ > kDeepest) fail("nested too deep");
    take('{');
    skip_space();
    while (!take('}')) {
      skip_space();
      const std::string key = peek() == '"' ? quoted().get<std::string>() : word("an option");
      skip_space();
      if (!take('=')) fail(fmt::format("{} in the place of `=` after `{}`", found(), key));
      if (object.contains(key)) fail(fmt::format("`{}` comes twice", key));
      object[key] = value();
      end_of_element('}');
    }
    --depth_;
    return object;
  }

  Json list() {
    Json list = Json::array();
    if (++depth_ > kDeepest) fail("nested too deep");
    take('[');
    skip_space();
    while (!take(']')) {
      list.push_back(value());
      end_of_element(']');
    }
    --depth_;
    return list;
  }

  // Leaves the closing bracket to the caller's loop; a comma must be followed by an element.
  void end_of_element(char close) {
    skip_space();
    if (peek() == close) return;
    if (!take(',')) fail(fmt::format("{} in the place of `,` or `{}`", found(), close));
    skip_space();
    if (peek() == close) fail(fmt::format("nothing between `,` and `{}`", close));
  }

  Json value() {
    skip_space();
    if (peek() == '{') return object();
    if (peek() == '[') return list();
    if (peek() == '"') return quoted();
    const std::string text = word("a value");
    Json scalar = Json::parse(text, nullptr, false);
    return scalar.is_discarded() ? Json(text) : scalar;
  }

  std::string_view line_;
  size_t position_ = 0;
  int depth_ = 0;
};

// Whether a string can stand without quotes: it has no separator and is not taken for a number.
bool is_bare(const std::string& text) {
  if (text.empty() || text.find_first_of(kEnds) != text.npos) return false;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x21 || c == 0x7f || c == '\\' || c == '\'') return false;
  }
  return Json::parse(text, nullptr, false).is_discarded();
}

std::string line_string(const std::string& text) {
  return is_bare(text) ? text : Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string line_value(const Json& value) {
  if (value.is_string()) return line_string(value.get<std::string>());
  if (!value.is_structured()) return value.dump();
  std::vector<std::string> parts;
  if (value.is_array()) {
    for (const Json& element : value) parts.push_back(line_value(element));
    return fmt::format("[{}]", fmt::join(parts, ","));
  }
  for (const auto& [key, element] : value.items()) {
    parts.push_back(fmt::format("{}={}", line_string(key), line_value(element)));
  }
  return fmt::format("{{{}}}", fmt::join(parts, ","));
}

Json parse_recipe_line(std::string_view line) {
  return {{"lathe", 1}, {"steps", LineReader(line).steps()}};
}

std::string print_step(const Step& step) {
  const Json options = step_options_json(step, WriteOptions::kChanged);
  return std::string(step.pass->info().id) + (options.empty() ? "" : line_value(options));
}

std::string print_recipe_line(const Recipe& recipe) {
  std::vector<std::string> steps;
  for (const Step& step : recipe.steps) steps.push_back(print_step(step));
  return fmt::format("{}", fmt::join(steps, ","));
}

}  // namespace compress
