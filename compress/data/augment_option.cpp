// How an element of `augment` is read, written and described.

#include "compress/data/augment.h"
#include "compress/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <utility>

namespace compress {
namespace {

using Transform = decltype(Augmentation::transform);

const char* name_of(const RandomCrop&) { return "crop"; }
const char* name_of(const RandomFlip&) { return "flip"; }
const char* name_of(const Cutout&) { return "cutout"; }

// All transforms with their options at their defaults.
const std::vector<Transform>& defaults() {
  static const std::vector<Transform> list = {RandomCrop(), RandomFlip(), Cutout()};
  return list;
}

class AugmentationType final : public OptionType {
 public:
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    auto& out = *static_cast<Augmentation*>(member);
    if (json.is_string()) {
      const auto name = json.get<std::string>();
      if (!choose(name, out)) unknown(name, where, problems);
      return;
    }
    if (!json.is_object() || json.size() != 1) {
      problems.add(where, fmt::format("{} is not an augmentation", brief(json)),
                   "it is a name, for example \"crop\", or {\"crop\": {\"pad\": 4}}");
      return;
    }
    const std::string& name = json.begin().key();
    const std::string pointer = join_pointer(where, name);
    if (!choose(name, out)) return unknown(name, pointer, problems);
    std::visit(
        [&]<class Options>(Options& value) {
          OptionsOf<Options> reader;
          read_options(json.begin().value(), pointer, reader, problems);
          value = reader.value;
        },
        out.transform);
  }

  Json write(const void* member) const override {
    return std::visit(
        []<class Options>(const Options& value) {
          OptionsOf<Options> options;
          options.value = value;
          return Json{{name_of(value), write_options(options, OptionsOf<Options>())}};
        },
        static_cast<const Augmentation*>(member)->transform);
  }

  Json schema() const override {
    Json choices = Json::array({Json{{"enum", augmentation_names()}}});
    for (const Transform& transform : defaults()) {
      std::visit(
          [&]<class Options>(const Options& value) {
            const std::string name = name_of(value);
            choices.push_back({{"type", "object"},
                               {"properties", {{name, options_schema(OptionsOf<Options>())}}},
                               {"required", Json::array({name})},
                               {"additionalProperties", false}});
          },
          transform);
    }
    return {{"anyOf", std::move(choices)}};
  }

  std::string name() const override {
    return fmt::format("{} | {{name: {{option}}}}", fmt::join(augmentation_names(), " | "));
  }

 private:
  static bool choose(const std::string& name, Augmentation& out) {
    const std::vector<std::string> names = augmentation_names();
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i] != name) continue;
      out.transform = defaults()[i];
      return true;
    }
    return false;
  }

  static void unknown(const std::string& name, const std::string& where, Problems& problems) {
    const std::string guess = did_you_mean(name, augmentation_names());
    problems.add(
        where, fmt::format("no augmentation is called `{}`", name),
        guess.empty() ? fmt::format("it can be {}", fmt::join(augmentation_names(), ", ")) : guess);
  }
};

}  // namespace

const OptionType& option_type(const Augmentation*) {
  static const AugmentationType type;
  return type;
}

std::vector<std::string> augmentation_names() {
  std::vector<std::string> names;
  for (const Transform& transform : defaults()) {
    names.emplace_back(std::visit([](const auto& value) { return name_of(value); }, transform));
  }
  return names;
}

}  // namespace compress
