// The types that a member of an options struct may have.

#include "compress/error.h"
#include "compress/options.h"
#include "compress/selector.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace compress {
namespace {

std::string quote_hint(const Json& json) {
  if (!json.is_string()) return "";
  const std::string& text = json.get_ref<const std::string&>();
  return Json::accept(text) && !text.empty() && text.front() != '"'
             ? fmt::format("write {} without quotes", text)
             : "";
}

class BoolType final : public OptionType {
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    if (json.is_boolean()) {
      *static_cast<bool*>(member) = json.get<bool>();
    } else {
      problems.add(where, fmt::format("{} is neither true nor false", brief(json)),
                   quote_hint(json));
    }
  }
  Json write(const void* member) const override { return *static_cast<const bool*>(member); }
  Json schema() const override { return {{"type", "boolean"}}; }
  std::string name() const override { return "true | false"; }
};

template <class Int>
class IntType final : public OptionType {
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    if (!json.is_number_integer()) {
      problems.add(where, fmt::format("{} is not a whole number", brief(json)), quote_hint(json));
      return;
    }
    const bool too_great =
        json.is_number_unsigned() &&
        json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<Int>::max());
    if (too_great || (!json.is_number_unsigned() &&
                      json.get<int64_t>() < int64_t{std::numeric_limits<Int>::min()})) {
      problems.add(where, fmt::format("{} does not fit {} bits", brief(json), 8 * sizeof(Int)));
      return;
    }
    *static_cast<Int*>(member) = json.get<Int>();
  }
  Json write(const void* member) const override { return *static_cast<const Int*>(member); }
  Json schema() const override { return {{"type", "integer"}}; }
  std::string name() const override { return "whole number"; }
};

class DoubleType final : public OptionType {
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    if (json.is_number()) {
      *static_cast<double*>(member) = json.get<double>();
    } else {
      problems.add(where, fmt::format("{} is not a number", brief(json)), quote_hint(json));
    }
  }
  // 1.0 prints as 1, so that a line that says `x=1` and one that says `x=1.0` have one canonical
  // form.
  Json write(const void* member) const override {
    const double number = *static_cast<const double*>(member);
    if (number == std::floor(number) && std::abs(number) < 1e15)
      return static_cast<int64_t>(number);
    return number;
  }
  Json schema() const override { return {{"type", "number"}}; }
  std::string name() const override { return "number"; }
};

class StringType final : public OptionType {
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    if (json.is_string()) {
      *static_cast<std::string*>(member) = json.get<std::string>();
    } else {
      problems.add(where, fmt::format("{} is not a string", brief(json)));
    }
  }
  Json write(const void* member) const override { return *static_cast<const std::string*>(member); }
  Json schema() const override { return {{"type", "string"}}; }
  std::string name() const override { return "text"; }
};

class GranularityType final : public OptionType {
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    Granularity& out = *static_cast<Granularity*>(member);
    Json size;
    if (json.is_string()) {
      const std::string& text = json.get_ref<const std::string&>();
      if (text == "tensor" || text == "channel") {
        out = text == "tensor" ? Granularity::tensor() : Granularity::channel();
        return;
      }
      constexpr std::string_view kPrefix = "group:";
      int64_t number = 0;
      const char* end = text.data() + text.size();
      if (text.starts_with(kPrefix) &&
          std::from_chars(text.data() + kPrefix.size(), end, number).ptr == end &&
          text.size() > kPrefix.size()) {
        size = number;
      }
    } else if (json.is_object() && json.size() == 1 && json.contains("group")) {
      size = json["group"];
    }
    if (!size.is_number_integer()) {
      problems.add(where, fmt::format("{} is not a granularity", brief(json)),
                   "it is tensor, channel or group:N, for example group:128");
    } else if (size.get<double>() < 1 || size.get<double>() > 1e9) {
      problems.add(where, fmt::format("a group of {} elements is outside [1, 1e9]", brief(size)));
    } else {
      out = Granularity::group(size.get<int64_t>());
    }
  }
  Json write(const void* member) const override {
    return static_cast<const Granularity*>(member)->text();
  }
  Json schema() const override {
    const Json text = {{"type", "string"}, {"pattern", "^(tensor|channel|group:[1-9][0-9]*)$"}};
    const Json object = {{"type", "object"},
                         {"properties", {{"group", {{"type", "integer"}, {"minimum", 1}}}}},
                         {"required", Json::array({"group"})},
                         {"additionalProperties", false}};
    return {{"anyOf", Json::array({text, object})}};
  }
  std::string name() const override { return "tensor | channel | group:N"; }
};

class SelectorType final : public OptionType {
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    read_selector(json, where, *static_cast<Selector*>(member), problems);
  }
  Json write(const void* member) const override {
    return write_selector(*static_cast<const Selector*>(member));
  }
  Json schema() const override { return {{"$ref", "#/$defs/selector"}}; }
  std::string name() const override { return "selector"; }
};

}  // namespace

std::string Granularity::text() const {
  if (kind == Kind::kTensor) return "tensor";
  return kind == Kind::kChannel ? "channel" : fmt::format("group:{}", group_size);
}

namespace detail {

const OptionType& option_type(const bool*) {
  static const BoolType type;
  return type;
}
const OptionType& option_type(const int*) {
  static const IntType<int> type;
  return type;
}
const OptionType& option_type(const int64_t*) {
  static const IntType<int64_t> type;
  return type;
}
const OptionType& option_type(const double*) {
  static const DoubleType type;
  return type;
}
const OptionType& option_type(const std::string*) {
  static const StringType type;
  return type;
}
const OptionType& option_type(const Granularity*) {
  static const GranularityType type;
  return type;
}
const OptionType& option_type(const Selector*) {
  static const SelectorType type;
  return type;
}

EnumType::EnumType(std::vector<std::string_view> names, Get get, Set set)
    : names_(std::move(names)), get_(get), set_(set) {}

void EnumType::read(const Json& json, const std::string& where, void* member,
                    Problems& problems) const {
  const std::string text = json.is_string() ? json.get<std::string>() : std::string();
  const auto found = std::find(names_.begin(), names_.end(), text);
  if (found != names_.end()) {
    set_(member, static_cast<size_t>(found - names_.begin()));
    return;
  }
  problems.add(where, fmt::format("{} is not one of {}", brief(json), fmt::join(names_, ", ")),
               did_you_mean(text, {names_.begin(), names_.end()}));
}

Json EnumType::write(const void* member) const { return std::string(names_.at(get_(member))); }
Json EnumType::schema() const { return {{"enum", names_}}; }
std::string EnumType::name() const { return fmt::format("{}", fmt::join(names_, " | ")); }

ListType::ListType(const OptionType& element, Size size, At at, Resize resize)
    : element_(element), size_(size), at_(at), resize_(resize) {}

void ListType::read(const Json& json, const std::string& where, void* member,
                    Problems& problems) const {
  if (!json.is_array()) {
    problems.add(where, fmt::format("{} is not a list", brief(json)));
    return;
  }
  resize_(member, 0);
  for (size_t i = 0; i < json.size(); ++i) {
    element_.read(json[i], join_pointer(where, i), resize_(member, i + 1), problems);
  }
}

Json ListType::write(const void* member) const {
  Json list = Json::array();
  for (size_t i = 0; i < size_(member); ++i) list.push_back(element_.write(at_(member, i)));
  return list;
}

Json ListType::schema() const { return {{"type", "array"}, {"items", element_.schema()}}; }
std::string ListType::name() const { return fmt::format("list of {}", element_.name()); }

}  // namespace detail
}  // namespace compress
