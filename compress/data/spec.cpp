// Data entries of recipes and of the command line: reading, checking, printing, schema.

#include "compress/data/spec.h"

#include "compress/data/short_value.h"
#include "compress/error.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace compress {
namespace {

// A kind of entry: its options at their defaults, and those without which it makes no sense. The
// first of these is what the short form puts after the colon.
struct Kind {
  std::string name;
  decltype(DataSpec::options) defaults;
  std::vector<std::string> required;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = [] {
    std::vector<Kind> all;
    for (const std::string& name : known_dataset_names())
      all.push_back({name, KnownData(), {"split"}});
    all.push_back({"images", ImageFolderData(), {"path"}});
    all.push_back({"tensors", TensorData(), {"path"}});
    all.push_back({"text", TextData(), {"path"}});
    all.push_back({"take", PartData(), {"from", "count"}});
    all.push_back({"drop", PartData(), {"from", "count"}});
    return all;
  }();
  return list;
}

const Kind* find_kind(std::string_view name) {
  const auto found = std::find_if(kinds().begin(), kinds().end(),
                                  [&](const Kind& kind) { return kind.name == name; });
  return found == kinds().end() ? nullptr : &*found;
}

std::string kind_hint(std::string_view name) {
  const std::string guess = did_you_mean(name, data_kinds());
  return guess.empty() ? fmt::format("it can be {}", fmt::join(data_kinds(), ", ")) : guess;
}

// "cifar10:test,normalize=imagenet" is cut at its commas, but not within brackets or quotes.
std::vector<std::string> cut_at_commas(std::string_view text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  bool quoted = false;
  for (const char c : text) {
    if (c == '"') quoted = !quoted;
    if (!quoted && (c == '[' || c == '{')) ++depth;
    if (!quoted && (c == ']' || c == '}')) --depth;
    if (c == ',' && depth <= 0 && !quoted) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

Json short_form_json(std::string_view text) {
  const size_t name_end = std::min(text.find_first_of(":,"), text.size());
  const std::string name(text.substr(0, name_end));
  const Kind* kind = find_kind(name);
  if (kind == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("no kind of data is called `{}`", name),
                "data", kind_hint(name));
  }
  Json options = Json::object();
  if (name_end < text.size()) {
    const std::vector<std::string> parts = cut_at_commas(text.substr(name_end + 1));
    for (size_t i = 0; i < parts.size(); ++i) {
      const size_t equals = parts[i].find('=');
      if (i == 0 && text[name_end] == ':') {
        options[kind->required.front()] = parts[i];
      } else if (equals != std::string::npos) {
        options[parts[i].substr(0, equals)] = detail::short_value(parts[i].substr(equals + 1));
      } else {
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("`{}` is not key=value in `{}`", parts[i], text), "data",
                    fmt::format("for example {}:{},key=value; a list is key=[a,b]", name,
                                kind->required.front()));
      }
    }
  }
  return Json{{name, options}};
}

enum class Form { kJson, kShort };

// What to write where the option `key` of a kind is missing.
std::string missing_hint(const Kind& kind, const std::string& key, Form form) {
  const bool split = std::holds_alternative<KnownData>(kind.defaults);
  if (form == Form::kJson) return split ? "it is `train` or `test`" : "";
  if (split) return fmt::format("write {0}:test or {0}:train", kind.name);
  return key == kind.required.front() ? fmt::format("write {}:{}", kind.name, key) : "";
}

const PartData* part(const DataSpec& spec) { return std::get_if<PartData>(&spec.options); }

// Follows `from` until it ends in a data set; reports a missing name or a circle.
void check_reference(const std::string& name, const DataSection& section, const Json& names,
                     const std::string& where, Problems& problems) {
  const PartData* start = part(section.at(name));
  if (start == nullptr) return;
  const std::string pointer =
      join_pointer(join_pointer(join_pointer(where, name), section.at(name).kind), "from");
  if (!names.contains(start->from)) {
    std::vector<std::string> known;
    for (const auto& [key, value] : names.items()) known.push_back(key);
    problems.add(pointer, fmt::format("there is no data entry `{}`", start->from),
                 did_you_mean(start->from, known));
    return;
  }
  std::set<std::string> seen = {name};
  for (const PartData* here = start; here != nullptr;) {
    if (!seen.insert(here->from).second) {
      problems.add(pointer, fmt::format("`{}` is taken from itself in a circle", name));
      return;
    }
    const auto next = section.find(here->from);
    here = next == section.end() ? nullptr : part(next->second);
  }
}

std::optional<DataSpec> read_entry(const Json& entry, const std::string& where, Form form,
                                   Problems& problems) {
  const size_t before = problems.size();
  if (!entry.is_object() || entry.size() != 1) {
    problems.add(where, fmt::format("{} is not a data entry", brief(entry)),
                 "it is an object with one key, for example {\"cifar10\": {\"split\": \"test\"}}");
    return std::nullopt;
  }
  const std::string& name = entry.begin().key();
  const Json& options = entry.begin().value();
  const std::string pointer = join_pointer(where, name);
  const Kind* kind = find_kind(name);
  if (kind == nullptr) {
    problems.add(pointer, fmt::format("no kind of data is called `{}`", name), kind_hint(name));
    return std::nullopt;
  }
  for (const std::string& key : kind->required) {
    if (options.is_object() && !options.contains(key)) {
      problems.add(pointer, fmt::format("`{}` is missing", key), missing_hint(*kind, key, form));
    }
  }
  DataSpec spec{name, kind->defaults};
  std::visit(
      [&]<class Options>(Options& value) {
        OptionsOf<Options> reader;
        read_options(options, pointer, reader, problems);
        value = std::move(reader.value);
      },
      spec.options);
  if (problems.size() > before) return std::nullopt;
  return spec;
}

}  // namespace

void ImageFolderData::validate(Problems& problems) const {
  if (resize != 0 && resize < size) {
    problems.add("resize", fmt::format("{} is below size, {}", resize, size),
                 "the crop must lie within the resized image");
  }
  const size_t values = std::max(normalize.values.mean.size(), normalize.values.std.size());
  if (color == Color::kGrey && normalize.preset != "auto" && values > 1) {
    problems.add("normalize", fmt::format("{} values for one channel", values),
                 "give one mean and one std");
  }
}

void TextData::validate(Problems& problems) const {
  if (begin >= end) problems.add("begin", fmt::format("{} is not below end, {}", begin, end));
}

std::vector<std::string> data_kinds() {
  std::vector<std::string> names;
  for (const Kind& kind : kinds()) names.push_back(kind.name);
  return names;
}

std::optional<DataSpec> read_data_spec(const Json& entry, const std::string& where,
                                       Problems& problems) {
  return read_entry(entry, where, Form::kJson, problems);
}

DataSection read_data_section(const Json& section, const std::string& where, Problems& problems) {
  DataSection specs;
  if (!section.is_object()) {
    problems.add(where, fmt::format("{} is not an object of named data entries", brief(section)));
    return specs;
  }
  for (const auto& [name, entry] : section.items()) {
    if (auto spec = read_data_spec(entry, join_pointer(where, name), problems)) {
      specs.emplace(name, std::move(*spec));
    }
  }
  for (const auto& [name, spec] : specs) check_reference(name, specs, section, where, problems);
  return specs;
}

DataSpec parse_data_spec(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\n");
  const bool is_json = first != std::string_view::npos && text[first] == '{';
  Problems problems;
  auto spec = is_json ? read_entry(parse_json(text), "", Form::kJson, problems)
                      : read_entry(short_form_json(text), "", Form::kShort, problems);
  problems.throw_if_any("data");
  if (part(*spec) != nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("`{}` refers to an entry of a recipe, and here is none", spec->kind),
                "data");
  }
  return std::move(*spec);
}

Json data_spec_json(const DataSpec& spec) {
  return std::visit(
      [&]<class Options>(const Options& value) {
        OptionsOf<Options> options;
        options.value = value;
        return Json{{spec.kind, write_options(options, OptionsOf<Options>())}};
      },
      spec.options);
}

Json data_spec_schema() {
  Json choices = Json::array();
  for (const Kind& kind : kinds()) {
    Json options = std::visit(
        []<class Options>(const Options&) { return options_schema(OptionsOf<Options>()); },
        kind.defaults);
    options["required"] = kind.required;
    choices.push_back({{"type", "object"},
                       {"properties", {{kind.name, std::move(options)}}},
                       {"required", Json::array({kind.name})},
                       {"additionalProperties", false}});
  }
  return {{"oneOf", std::move(choices)}};
}

}  // namespace compress
