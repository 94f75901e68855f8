// Selectors in recipes.

#include "compress/error.h"
#include "compress/options.h"
#include "compress/selector.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace compress {
namespace {

void read_glob(const Json& json, const std::string& where, std::vector<std::string>& out,
               Problems& problems) {
  if (!json.is_string() || json.get_ref<const std::string&>().empty()) {
    problems.add(where, fmt::format("{} is not a name", brief(json)),
                 "a name may have wildcards, such as layer1.*");
    return;
  }
  const std::string glob = json.get<std::string>();
  const size_t open = glob.rfind('[');
  if (open != glob.npos && glob.find(']', open) == glob.npos) {
    problems.add(where, fmt::format("`{}` has a [ without a ]", glob));
    return;
  }
  out.push_back(glob);
}

// A single element, or a list of at least one.
template <class Read>
void read_one_or_more(const Json& json, const std::string& where, Problems& problems, Read&& read) {
  if (!json.is_array()) {
    read(json, where);
    return;
  }
  if (json.empty()) {
    problems.add(where, "an empty list selects nothing", "leave the key out to select everything");
  }
  for (size_t i = 0; i < json.size(); ++i) read(json[i], join_pointer(where, i));
}

void read_kind(const Json& json, const std::string& where, std::vector<OperatorKind>& out,
               Problems& problems) {
  const size_t before = problems.size();
  OperatorKind kind{};
  detail::option_type(&kind).read(json, where, &kind, problems);
  if (problems.size() == before) out.push_back(kind);
}

void read_elements(const Json& json, const std::string& where, std::optional<int64_t>& out,
                   Problems& problems) {
  const size_t before = problems.size();
  int64_t elements = 0;
  detail::option_type(&elements).read(json, where, &elements, problems);
  if (problems.size() > before) return;
  if (elements < 0) {
    problems.add(where, fmt::format("{} is less than 0", elements));
  } else {
    out = elements;
  }
}

void read_parts(const Json& json, const std::string& where, std::vector<Selector>& out,
                Problems& problems) {
  if (!json.is_array() || json.empty()) {
    problems.add(where, fmt::format("{} is not a list of selectors", brief(json)));
    return;
  }
  for (size_t i = 0; i < json.size(); ++i) {
    read_selector(json[i], join_pointer(where, i), out.emplace_back(), problems);
  }
}

void read_object(const Json& json, const std::string& where, Selector& out, Problems& problems) {
  static const std::vector<std::string> kKeys = {"name", "kind", "min_elements", "max_elements",
                                                 "not",  "any",  "all"};
  for (const auto& [key, value] : json.items()) {
    const std::string pointer = join_pointer(where, key);
    if (key == "name") {
      read_one_or_more(value, pointer, problems, [&](const Json& glob, const std::string& at) {
        read_glob(glob, at, out.names, problems);
      });
    } else if (key == "kind") {
      read_one_or_more(value, pointer, problems, [&](const Json& kind, const std::string& at) {
        read_kind(kind, at, out.kinds, problems);
      });
    } else if (key == "min_elements") {
      read_elements(value, pointer, out.min_elements, problems);
    } else if (key == "max_elements") {
      read_elements(value, pointer, out.max_elements, problems);
    } else if (key == "not") {
      read_selector(value, pointer, out.none.emplace_back(), problems);
    } else if (key == "any") {
      read_parts(value, pointer, out.any, problems);
    } else if (key == "all") {
      read_parts(value, pointer, out.all, problems);
    } else {
      const std::string hint = did_you_mean(key, kKeys);
      problems.add(pointer, fmt::format("unknown key `{}` of a selector", key),
                   hint.empty() ? fmt::format("the keys are {}", fmt::join(kKeys, ", ")) : hint);
    }
  }
}

template <class T, class Write>
Json one_or_more(const std::vector<T>& list, Write&& write) {
  if (list.size() == 1) return write(list.front());
  Json json = Json::array();
  for (const T& element : list) json.push_back(write(element));
  return json;
}

Json write_parts(const std::vector<Selector>& parts) {
  Json json = Json::array();
  for (const Selector& part : parts) json.push_back(write_selector(part));
  return json;
}

// A selector that is nothing but `any`, as a list; null if it is not, or a list of names, which
// would read as one.
Json list_of_parts(const Selector& selector) {
  Selector only_any;
  only_any.any = selector.any;
  if (selector.any.empty() || !(selector == only_any)) return {};
  Json parts = write_parts(selector.any);
  const bool names =
      std::all_of(parts.begin(), parts.end(), [](const Json& part) { return part.is_string(); });
  return names ? Json() : parts;
}

}  // namespace

void read_selector(const Json& json, const std::string& where, Selector& out, Problems& problems) {
  out = Selector();
  if (json.is_string()) {
    read_glob(json, where, out.names, problems);
    if (out.names == std::vector<std::string>{"*"}) out.names.clear();
  } else if (json.is_array()) {
    bool only_names = true;
    for (const Json& part : json) only_names = only_names && part.is_string();
    read_one_or_more(json, where, problems, [&](const Json& part, const std::string& at) {
      if (only_names) {
        read_glob(part, at, out.names, problems);
      } else {
        read_selector(part, at, out.any.emplace_back(), problems);
      }
    });
  } else if (json.is_object()) {
    read_object(json, where, out, problems);
  } else {
    problems.add(where, fmt::format("{} is not a selector", brief(json)),
                 "it is a name with wildcards, a list of them, or an object such as "
                 "{\"kind\": \"conv\"}");
  }
}

// The shortest of the forms that read back to the same selector.
Json write_selector(const Selector& selector) {
  if (selector.is_everything()) return "*";
  const auto same = [](const auto& element) { return Json(element); };
  if (selector == [&] {
        Selector s;
        s.names = selector.names;
        return s;
      }()) {
    return one_or_more(selector.names, same);
  }
  // A list is nested no deeper than what it was read from, which an object in its place would be.
  if (Json parts = list_of_parts(selector); !parts.is_null()) return parts;
  const auto kind_names = option_names(OperatorKind{});
  Json json = Json::object();
  if (!selector.names.empty()) json["name"] = one_or_more(selector.names, same);
  if (!selector.kinds.empty()) {
    json["kind"] = one_or_more(selector.kinds, [&](OperatorKind kind) {
      return Json(std::string(kind_names[static_cast<size_t>(kind)]));
    });
  }
  if (selector.min_elements) json["min_elements"] = *selector.min_elements;
  if (selector.max_elements) json["max_elements"] = *selector.max_elements;
  if (!selector.none.empty()) json["not"] = one_or_more(selector.none, write_selector);
  if (!selector.any.empty()) json["any"] = write_parts(selector.any);
  if (!selector.all.empty()) json["all"] = write_parts(selector.all);
  return json;
}

Json selector_schema() {
  const Json self = {{"$ref", "#/$defs/selector"}};
  const Json list_of_selectors = {{"type", "array"}, {"items", self}, {"minItems", 1}};
  const Json glob = {{"type", "string"}, {"minLength", 1}};
  const Json kind = {{"enum", option_names(OperatorKind{})}};
  const auto one_or_more_of = [](const Json& element) {
    return Json{
        {"anyOf",
         Json::array({element, Json{{"type", "array"}, {"items", element}, {"minItems", 1}}})}};
  };
  const Json count = {{"type", "integer"}, {"minimum", 0}};
  const Json object = {{"type", "object"},
                       {"properties",
                        {{"name", one_or_more_of(glob)},
                         {"kind", one_or_more_of(kind)},
                         {"min_elements", count},
                         {"max_elements", count},
                         {"not", self},
                         {"any", list_of_selectors},
                         {"all", list_of_selectors}}},
                       {"additionalProperties", false}};
  return {
      {"description",
       "Which weights: a name with wildcards, a list of which any may match, or conditions that "
       "must all hold."},
      {"anyOf", Json::array({glob, list_of_selectors, object})}};
}

}  // namespace compress
