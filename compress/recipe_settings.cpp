// Settings (`--set path=value`) and variables (`${name}`) of a recipe.

#include "compress/error.h"
#include "compress/options.h"
#include "compress/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <optional>

namespace compress {
namespace {

std::optional<size_t> as_index(const std::string& text) {
  size_t index = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return index;
}

// The element `key` of `node`; only an object may get a new one.
Json& descend(Json& node, const std::string& key, bool may_be_new, const std::string& path) {
  const auto fail = [&](const std::string& message, const std::string& hint) {
    throw Error(ErrorCode::kInvalidArgument, message, "--set " + path, hint);
  };
  if (node.is_array()) {
    const std::optional<size_t> index = as_index(key);
    if (!index || *index >= node.size()) {
      fail(fmt::format("there is no element `{}`", key),
           node.empty() ? "the list is empty"
                        : fmt::format("the list has elements 0 to {}", node.size() - 1));
    }
    return node[*index];
  }
  if (!node.is_object()) {
    fail(fmt::format("{} has no parts, so no `{}`", brief(node), key), "");
  }
  if (!may_be_new && !node.contains(key)) {
    std::vector<std::string> keys;
    for (const auto& [name, value] : node.items()) keys.push_back(name);
    const std::string hint = did_you_mean(key, keys);
    fail(fmt::format("there is no `{}`", key),
         hint.empty() ? fmt::format("there is {}", fmt::join(keys, ", ")) : hint);
  }
  return node[key];
}

void apply_setting(Json& recipe, const std::string& setting) {
  const size_t equals = setting.find('=');
  if (equals == setting.npos || equals == 0) {
    throw Error(ErrorCode::kInvalidArgument, "a setting without `=`", "--set " + setting,
                "a setting looks like steps.0.sparsity=0.5");
  }
  const std::string path = setting.substr(0, equals), text = setting.substr(equals + 1);
  std::vector<std::string> keys;
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('.', start), path.size());
    keys.push_back(path.substr(start, end - start));
    start = end + 1;
  }
  Json* node = &recipe;
  for (size_t i = 0; i < keys.size(); ++i) {
    // A new variable would be one that nothing uses: a slip of the keyboard.
    const bool may_be_new = i + 1 == keys.size() && !(i > 0 && keys[0] == "variables");
    node = &descend(*node, keys[i], may_be_new, path);
  }
  Json value = Json::parse(text, nullptr, false);
  *node = value.is_discarded() ? Json(text) : std::move(value);
}

// Fills variables in, everywhere below `node`.
class Variables {
 public:
  Variables(const Json& values, Problems& problems) : values_(values), problems_(problems) {
    for (const auto& [name, value] : values.items()) names_.push_back(name);
  }

  void fill(Json& node, const std::string& where) {
    if (node.is_array()) {
      for (size_t i = 0; i < node.size(); ++i) fill(node[i], join_pointer(where, i));
    } else if (node.is_object()) {
      for (auto& [key, value] : node.items()) fill(value, join_pointer(where, key));
    } else if (node.is_string() &&
               node.get_ref<const std::string&>().find("${") != std::string::npos) {
      node = filled(node.get<std::string>(), where);
    }
  }

 private:
  Json filled(const std::string& text, const std::string& where) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      if (text.compare(i, 3, "$${") == 0) {
        out += "${";
        i += 3;
      } else if (text.compare(i, 2, "${") == 0) {
        const size_t end = text.find('}', i);
        if (end == text.npos) {
          problems_.add(where, fmt::format("\"{}\" has a ${{ without a }}", text),
                        "write $${ for a literal ${");
          return text;
        }
        const std::string name = text.substr(i + 2, end - i - 2);
        if (!values_.contains(name)) {
          problems_.add(where, fmt::format("there is no variable `{}`", name), hint(name));
          return text;
        }
        const Json& value = values_[name];
        if (i == 0 && end + 1 == text.size()) return value;
        out += value.is_string() ? value.get<std::string>() : value.dump();
        i = end + 1;
      } else {
        out += text[i++];
      }
    }
    return out;
  }

  std::string hint(const std::string& name) const {
    const std::string near = did_you_mean(name, names_);
    if (!near.empty()) return near;
    return names_.empty() ? "the recipe has no `variables`"
                          : fmt::format("the variables are {}", fmt::join(names_, ", "));
  }

  const Json& values_;
  Problems& problems_;
  std::vector<std::string> names_;
};

void fill_variables(RecipeSource& source) {
  if (!source.json.is_object()) return;
  Json values = Json::object();
  Problems problems;
  if (source.json.contains("variables")) {
    values = source.json["variables"];
    source.json.erase("variables");
    if (!values.is_object()) {
      problems.add("/variables", fmt::format("{} is not an object of variables", brief(values)));
      problems.throw_if_any(source.file);
    }
  }
  Variables(values, problems).fill(source.json, "");
  at_origins(problems, source.origins).throw_if_any(source.file);
}

}  // namespace

void apply_settings(RecipeSource& source, const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) apply_setting(source.json, setting);
  fill_variables(source);
}

}  // namespace compress
