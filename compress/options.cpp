// Reading and writing options through their fields.

#include "compress/options.h"

#include "compress/error.h"
#include "compress/selector.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace compress {
namespace {

std::string range_problem(const Field& field, double number) {
  if (field.minimum && field.maximum) {
    return fmt::format("{} is outside [{}, {}]", number, *field.minimum, *field.maximum);
  }
  return fmt::format("{} is less than {}", number, *field.minimum);
}

void check_range(const Field& field, const Json& value, const std::string& where,
                 Problems& problems) {
  if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) {
      check_range(field, value[i], join_pointer(where, i), problems);
    }
  } else if (value.is_number()) {
    const double number = value.get<double>();
    const bool below = field.minimum && !(number >= *field.minimum);
    const bool above = field.maximum && !(number <= *field.maximum);
    if (below || above) problems.add(where, range_problem(field, number));
  }
}

}  // namespace

void Problems::add(std::string_view where, std::string message, std::string hint) {
  std::string pointer = prefix_;
  if (!where.empty() && where.front() != '/') {
    pointer = join_pointer(prefix_, where);
  } else {
    pointer += where;
  }
  list_.emplace_back(ErrorCode::kInvalidArgument, std::move(message), std::move(pointer),
                     std::move(hint));
}

void Problems::add(const Error& error) { list_.push_back(error); }

void Problems::throw_if_any(const std::string& file) const {
  if (list_.empty()) return;
  std::vector<Error> problems;
  for (const Error& problem : list_) {
    const bool said = file.empty() || problem.where().starts_with(file + ": ");
    problems.push_back(said ? problem : problem.within(file));
  }
  if (problems.size() == 1) throw problems.front();
  std::string text = fmt::format("{} problems", problems.size());
  for (const Error& problem : problems) text += fmt::format("\n  {}", problem.what());
  throw Error(ErrorCode::kInvalidArgument, text);
}

const Selector* Field::selector() const {
  const OptionType& selectors = detail::option_type(static_cast<const Selector*>(nullptr));
  return type == &selectors ? static_cast<const Selector*>(member) : nullptr;
}

void read_options(const Json& object, const std::string& where, AnyOptions& options,
                  Problems& problems, const std::vector<std::string>& skip) {
  if (!object.is_object()) {
    problems.add(where, fmt::format("{} is not an object of options", brief(object)));
    return;
  }
  const size_t before = problems.size();
  const std::vector<Field> fields = options.fields();
  std::vector<std::string> names = skip;
  for (const Field& field : fields) names.push_back(field.name);
  for (const auto& [key, value] : object.items()) {
    if (std::find(skip.begin(), skip.end(), key) != skip.end()) continue;
    const std::string pointer = join_pointer(where, key);
    const auto field = std::find_if(fields.begin(), fields.end(),
                                    [&key = key](const Field& f) { return f.name == key; });
    if (field == fields.end()) {
      std::string hint = did_you_mean(key, names);
      if (hint.empty()) {
        hint = fields.empty()
                   ? "it has no options"
                   : fmt::format("the options are {}",
                                 fmt::join(names.begin() + skip.size(), names.end(), ", "));
      }
      problems.add(pointer, fmt::format("unknown option `{}`", key), hint);
      continue;
    }
    const size_t before_value = problems.size();
    field->type->read(value, pointer, field->member, problems);
    if (problems.size() == before_value) check_range(*field, value, pointer, problems);
  }
  if (problems.size() > before) return;  // the rules would complain about half-read options
  const std::string outer = problems.prefix();
  problems.set_prefix(where);
  options.validate(problems);
  problems.set_prefix(outer);
}

Json write_options(const AnyOptions& options, const AnyOptions& defaults, WriteOptions which) {
  const std::unique_ptr<AnyOptions> set = options.clone(), plain = defaults.clone();
  const std::vector<Field> fields = set->fields(), unchanged = plain->fields();
  Json object = Json::object();
  for (size_t i = 0; i < fields.size(); ++i) {
    const Json value = fields[i].type->write(fields[i].member);
    if (which == WriteOptions::kChanged && value == unchanged[i].type->write(unchanged[i].member)) {
      continue;
    }
    object[fields[i].name] = value;
  }
  return object;
}

}  // namespace compress
