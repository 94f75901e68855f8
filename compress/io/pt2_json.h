// JSON that was written by others: every look is checked and an error says where in the file it is.

#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace compress {

/// A parsed JSON text with the name that errors give it ("model.pt2: models/model.json").
class JsonDocument {
 public:
  /// Throws Error(kBadFile) with the byte at which the text stops being JSON.
  JsonDocument(std::string_view text, std::string name);

  const nlohmann::json& root() const { return root_; }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  nlohmann::json root_;
};

/// A place in a document. Every accessor throws Error(kBadFile) with a JSON pointer when what it
/// finds is of another kind. The document must outlive it.
class JsonCursor {
 public:
  explicit JsonCursor(const JsonDocument& document)
      : document_(&document), value_(&document.root()) {}

  /// The member of an object; it must be there.
  JsonCursor operator[](const char* key) const;
  /// Whether the object has the member and it is not null.
  bool has(const char* key) const;
  /// The elements of an array.
  std::vector<JsonCursor> elements() const;
  /// The members of an object, in the order of their names.
  std::vector<std::pair<std::string, JsonCursor>> members() const;
  /// The one member of an object that stands for a union: {"as_int": 3}.
  std::pair<std::string, JsonCursor> alternative() const;

  int64_t integer() const;
  double number() const;  ///< also "Infinity", "-Infinity" and "NaN"
  bool boolean() const;
  const std::string& string() const;
  std::vector<int64_t> integers() const;
  bool is_null() const { return value_->is_null(); }
  bool is_object() const { return value_->is_object(); }
  bool is_string() const { return value_->is_string(); }
  bool is_integer() const { return value_->is_number_integer(); }
  const nlohmann::json& json() const { return *value_; }

  /// "model.pt2: models/model.json: /graph_module/graph", searched for only when an error needs it.
  std::string where() const;
  /// Throws Error(kBadFile) about this place.
  [[noreturn]] void fail(const std::string& message) const;

 private:
  JsonCursor(const JsonDocument* document, const nlohmann::json* value)
      : document_(document), value_(value) {}
  [[noreturn]] void expected(const char* what) const;

  const JsonDocument* document_;
  const nlohmann::json* value_;
};

}  // namespace compress
