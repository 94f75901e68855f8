// Options inside of options: reading, writing, schema.

#include "compress/options_nested.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace compress {

// What is written is read again, by a reader that checks everything.
void check_options(const AnyOptions& options) {
  const std::unique_ptr<AnyOptions> again = options.clone();
  Problems problems;
  read_options(write_options(options, options), "", *again, problems);
  problems.throw_if_any();
}

namespace detail {
namespace {

std::vector<std::string> choice_names(const std::vector<NestedOptions>& choices) {
  std::vector<std::string> names;
  for (const NestedOptions& choice : choices) names.emplace_back(choice.name);
  return names;
}

}  // namespace

void StructType::read(const Json& json, const std::string& where, void* member,
                      Problems& problems) const {
  const std::unique_ptr<AnyOptions> options = nested_.defaults();
  const size_t before = problems.size();
  read_options(json, where, *options, problems);
  if (problems.size() == before) nested_.set(member, *options);
}

Json StructType::write(const void* member) const {
  return write_options(*nested_.get(member), *nested_.defaults());
}

Json StructType::schema() const { return options_schema(*nested_.defaults()); }

std::string StructType::name() const {
  std::vector<std::string> names;
  const std::unique_ptr<AnyOptions> options = nested_.defaults();
  for (const Field& field : options->fields()) names.push_back(field.name);
  return fmt::format("{{{}}}", fmt::join(names, ", "));
}

void OneOfType::read(const Json& json, const std::string& where, void* member,
                     Problems& problems) const {
  const std::vector<std::string> names = choice_names(choices_);
  const bool is_name = json.is_string();
  if (!is_name && (!json.is_object() || json.size() != 1)) {
    problems.add(where,
                 fmt::format("{} does not name one of {}", brief(json), fmt::join(names, ", ")),
                 fmt::format("for example {{\"{}\": {{}}}}", names.front()));
    return;
  }
  const std::string name = is_name ? json.get<std::string>() : json.begin().key();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    const std::string hint = did_you_mean(name, names);
    problems.add(is_name ? where : join_pointer(where, name),
                 fmt::format("unknown choice `{}`", name),
                 hint.empty() ? fmt::format("it can be {}", fmt::join(names, ", ")) : hint);
    return;
  }
  const NestedOptions& choice = choices_[static_cast<size_t>(found - names.begin())];
  const std::unique_ptr<AnyOptions> options = choice.defaults();
  const size_t before = problems.size();
  if (!is_name) read_options(json[name], join_pointer(where, name), *options, problems);
  if (problems.size() == before) choice.set(member, *options);
}

Json OneOfType::write(const void* member) const {
  for (const NestedOptions& choice : choices_) {
    if (const std::unique_ptr<AnyOptions> options = choice.get(member)) {
      return Json{{std::string(choice.name), write_options(*options, *choice.defaults())}};
    }
  }
  return nullptr;
}

Json OneOfType::schema() const {
  Json either = Json::array({{{"enum", choice_names(choices_)}}});
  for (const NestedOptions& choice : choices_) {
    const std::string name(choice.name);
    either.push_back({{"type", "object"},
                      {"properties", {{name, options_schema(*choice.defaults())}}},
                      {"required", Json::array({name})},
                      {"additionalProperties", false}});
  }
  return {{"oneOf", either}};
}

std::string OneOfType::name() const {
  return fmt::format("{}", fmt::join(choice_names(choices_), " | "));
}

}  // namespace detail
}  // namespace compress
