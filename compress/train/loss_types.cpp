// What options of losses are made of: teachers by name, places in two networks.

#include "compress/train/loss_types.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace compress {
namespace {

Json name_schema() { return {{"type", "string"}, {"minLength", 1}}; }

bool is_name(const Json& json) {
  return json.is_string() && !json.get_ref<const std::string&>().empty();
}

class TeacherNamesType final : public OptionType {
 public:
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    std::vector<std::string> names;
    const Json list = json.is_array() ? json : Json::array({json});
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string here = json.is_array() ? join_pointer(where, i) : where;
      if (!is_name(list[i])) {
        problems.add(here, fmt::format("{} is no teacher's name", brief(list[i])),
                     "for example \"original\"");
        return;
      }
      const std::string name = list[i].get<std::string>();
      if (std::find(names.begin(), names.end(), name) != names.end()) {
        problems.add(here, fmt::format("the teacher `{}` comes twice", name));
        return;
      }
      names.push_back(name);
    }
    if (names.empty()) {
      problems.add(where, "names no teacher", "for example \"original\"");
      return;
    }
    static_cast<TeacherNames*>(member)->names = std::move(names);
  }
  Json write(const void* member) const override {
    const std::vector<std::string>& names = static_cast<const TeacherNames*>(member)->names;
    return names.size() == 1 ? Json(names.front()) : Json(names);
  }
  Json schema() const override {
    const Json list = {
        {"type", "array"}, {"items", name_schema()}, {"minItems", 1}, {"uniqueItems", true}};
    return {{"anyOf", Json::array({name_schema(), list})}};
  }
  std::string name() const override { return "name | list of names"; }
};

class TapPairType final : public OptionType {
 public:
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    TapPair& pair = *static_cast<TapPair*>(member);
    if (is_name(json)) {
      pair.student = pair.teacher = json.get<std::string>();
      return;
    }
    if (!json.is_object() || json.size() != 2 || !json.contains("student") ||
        !json.contains("teacher") || !is_name(json["student"]) || !is_name(json["teacher"])) {
      problems.add(where, fmt::format("{} names no place in the two networks", brief(json)),
                   R"(for example "layer2", or {"student": "layer2", "teacher": "layer3"})");
      return;
    }
    pair = {json["student"].get<std::string>(), json["teacher"].get<std::string>()};
  }
  Json write(const void* member) const override {
    const TapPair& pair = *static_cast<const TapPair*>(member);
    if (pair.student == pair.teacher) return pair.student;
    return {{"student", pair.student}, {"teacher", pair.teacher}};
  }
  Json schema() const override {
    const Json object = {{"type", "object"},
                         {"properties", {{"student", name_schema()}, {"teacher", name_schema()}}},
                         {"required", Json::array({"student", "teacher"})},
                         {"additionalProperties", false}};
    return {{"anyOf", Json::array({name_schema(), object})}};
  }
  std::string name() const override { return "text | {student, teacher}"; }
};

}  // namespace

const OptionType& option_type(const TeacherNames*) {
  static const TeacherNamesType type;
  return type;
}

const OptionType& option_type(const TapPair*) {
  static const TapPairType type;
  return type;
}

void require_taps(const std::vector<TapPair>& taps, std::string_view option, Problems& problems) {
  bool named = !taps.empty();
  for (const TapPair& tap : taps) named = named && !tap.student.empty() && !tap.teacher.empty();
  if (named) return;
  problems.add(option, "names no place to compare",
               fmt::format("give a module's path, for example \"{}\": {}", option,
                           option == "taps" ? "[\"layer2\", \"layer3\"]" : "\"layer2\""));
}

}  // namespace compress
