// An option that may be left to the pass: `auto`, or a value.

#pragma once

#include "compress/options.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>

namespace compress {

/// A member whose default depends on other options. In a recipe: `auto`, or what a T is written as.
template <class T>
struct OrAuto {
  std::optional<T> value;  ///< none: `auto`

  T value_or(T otherwise) const { return value.value_or(otherwise); }
};

namespace detail {

template <class T>
class OrAutoType final : public OptionType {
 public:
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    OrAuto<T>& out = *static_cast<OrAuto<T>*>(member);
    if (json == "auto") {
      out.value.reset();
      return;
    }
    T value{};
    element().read(json, where, &value, problems);
    out.value = value;
  }
  Json write(const void* member) const override {
    const OrAuto<T>& from = *static_cast<const OrAuto<T>*>(member);
    return from.value ? element().write(&*from.value) : Json("auto");
  }
  Json schema() const override {
    return {{"anyOf", Json::array({Json{{"const", "auto"}}, element().schema()})}};
  }
  std::string name() const override { return "auto | " + element().name(); }

 private:
  static const OptionType& element() { return option_type(static_cast<const T*>(nullptr)); }
};

}  // namespace detail

template <class T>
const OptionType& option_type(const OrAuto<T>*) {
  static const detail::OrAutoType<T> type;
  return type;
}

}  // namespace compress
