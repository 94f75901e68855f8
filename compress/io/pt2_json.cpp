// JSON that was written by others: every look is checked and an error says where in the file it is.

#include "compress/io/pt2_json.h"

#include "compress/error.h"

#include <fmt/format.h>

#include <limits>

namespace compress {
namespace {

using nlohmann::json;

// The deepest nesting that is followed; files of the exporter need about twenty.
constexpr int kDeepest = 200;

// Python's json module writes these bare words, which JSON lacks; the exporter writes them as they
// come. They are put in quotes so that one parser serves all.
std::string quote_bare_numbers(std::string_view text) {
  std::string quoted;
  quoted.reserve(text.size() + 16);
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\' && i + 1 < text.size()) quoted += text[i++];
      if (c == '"') in_string = false;
      quoted += text[i++];
      continue;
    }
    size_t length = 0;
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
      if (length == 0 && text.substr(i, word.size()) == word) length = word.size();
    }
    if (length > 0) {
      quoted.append("\"").append(text.substr(i, length)).append("\"");
      i += length;
      continue;
    }
    in_string = c == '"';
    quoted += c;
    ++i;
  }
  return quoted;
}

json parse(std::string_view text, const std::string& name) {
  const auto too_deep = [&](int depth, json::parse_event_t, json&) {
    if (depth > kDeepest) {
      throw Error(ErrorCode::kBadFile, fmt::format("nested deeper than {} levels", kDeepest), name);
    }
    return true;
  };
  return json::parse(text, too_deep);
}

// Writes the pointer to `wanted`, which lies somewhere below `value`.
bool find_pointer(const json& value, const json* wanted, std::string& pointer) {
  if (&value == wanted) return true;
  const size_t length = pointer.size();
  if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) {
      pointer += fmt::format("/{}", i);
      if (find_pointer(value[i], wanted, pointer)) return true;
      pointer.resize(length);
    }
  } else if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      pointer += "/" + key;
      if (find_pointer(member, wanted, pointer)) return true;
      pointer.resize(length);
    }
  }
  return false;
}

}  // namespace

JsonDocument::JsonDocument(std::string_view text, std::string name) : name_(std::move(name)) {
  const bool bare = text.find("Infinity") != text.npos || text.find("NaN") != text.npos;
  try {
    root_ = bare ? parse(quote_bare_numbers(text), name_) : parse(text, name_);
    // The parser takes a zero byte for the end.
    if (const size_t zero = text.find('\0'); zero != text.npos) {
      throw Error(ErrorCode::kBadFile, fmt::format("not JSON from byte {} on", zero + 1), name_,
                  "the file is damaged or not from torch.export");
    }
  } catch (const json::parse_error& error) {
    throw Error(ErrorCode::kBadFile, fmt::format("not JSON from byte {} on", error.byte), name_,
                "the file is damaged or not from torch.export");
  }
}

std::string JsonCursor::where() const {
  std::string pointer;
  find_pointer(document_->root(), value_, pointer);
  return pointer.empty() ? document_->name() : document_->name() + ": " + pointer;
}

void JsonCursor::fail(const std::string& message) const {
  throw Error(ErrorCode::kBadFile, message, where());
}

void JsonCursor::expected(const char* what) const {
  fail(fmt::format("found {}, expected {}", value_->type_name(), what));
}

JsonCursor JsonCursor::operator[](const char* key) const {
  if (!value_->is_object()) expected("an object");
  const auto member = value_->find(key);
  if (member == value_->end()) fail(fmt::format("`{}` is missing", key));
  return {document_, &*member};
}

bool JsonCursor::has(const char* key) const {
  if (!value_->is_object()) return false;
  const auto member = value_->find(key);
  return member != value_->end() && !member->is_null();
}

std::vector<JsonCursor> JsonCursor::elements() const {
  if (!value_->is_array()) expected("an array");
  std::vector<JsonCursor> elements;
  elements.reserve(value_->size());
  for (const nlohmann::json& element : *value_) elements.push_back({document_, &element});
  return elements;
}

std::vector<std::pair<std::string, JsonCursor>> JsonCursor::members() const {
  if (!value_->is_object()) expected("an object");
  std::vector<std::pair<std::string, JsonCursor>> members;
  for (const auto& [key, member] : value_->items()) {
    members.emplace_back(key, JsonCursor(document_, &member));
  }
  return members;
}

std::pair<std::string, JsonCursor> JsonCursor::alternative() const {
  if (!value_->is_object() || value_->size() != 1) expected("an object with one member");
  return {value_->begin().key(), {document_, &*value_->begin()}};
}

int64_t JsonCursor::integer() const {
  if (!value_->is_number_integer()) expected("an integer");
  if (value_->is_number_unsigned() &&
      value_->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    fail("the integer does not fit 64 bits");
  }
  return value_->get<int64_t>();
}

double JsonCursor::number() const {
  if (value_->is_string()) {
    const std::string& word = value_->get_ref<const std::string&>();
    if (word == "Infinity") return std::numeric_limits<double>::infinity();
    if (word == "-Infinity") return -std::numeric_limits<double>::infinity();
    if (word == "NaN") return std::numeric_limits<double>::quiet_NaN();
  }
  if (!value_->is_number()) expected("a number");
  return value_->get<double>();
}

bool JsonCursor::boolean() const {
  if (!value_->is_boolean()) expected("true or false");
  return value_->get<bool>();
}

const std::string& JsonCursor::string() const {
  if (!value_->is_string()) expected("a string");
  return value_->get_ref<const std::string&>();
}

std::vector<int64_t> JsonCursor::integers() const {
  std::vector<int64_t> numbers;
  for (const JsonCursor& element : elements()) numbers.push_back(element.integer());
  return numbers;
}

}  // namespace compress
