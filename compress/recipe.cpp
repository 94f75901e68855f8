// Reading and writing recipes.

#include "compress/recipe.h"

#include "compress/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>

namespace compress {
namespace {

constexpr int kVersion = 1;  // of the recipe format
const std::vector<std::string> kKeys = {"$schema", "lathe",    "name",    "seed",     "data",
                                        "steps",   "evaluate", "include", "variables"};

void read_version(const Json& json, Problems& problems) {
  if (!json.contains("lathe")) {
    problems.add("/lathe", "the version of the recipe format is missing", "add \"lathe\": 1");
  } else if (!json["lathe"].is_number_integer() || json["lathe"] != kVersion) {
    problems.add("/lathe",
                 fmt::format("{} is not a version of the recipe format that this Lathe reads",
                             brief(json["lathe"])),
                 "it reads \"lathe\": 1");
  }
}

void read_steps(const Json& json, const std::string& where, const PassRegistry& registry,
                std::vector<Step>& steps, Problems& problems);

std::shared_ptr<const AnyOptions> read_pass_options(const Json& json, const std::string& where,
                                                    const Pass& pass, Problems& problems) {
  std::unique_ptr<AnyOptions> options = pass.default_options();
  std::vector<std::string> others = {"pass"};
  if (pass.info().id == kTrainId) others.emplace_back("during");
  read_options(json, where, *options, problems, others);
  return options;
}

// `json` holds the options of a pass, and those of its hooks.
void read_pass(const Json& json, const std::string& where, const Pass& pass,
               const PassRegistry& registry, std::vector<Step>& steps, Problems& problems) {
  Step step{&pass, read_pass_options(json, where, pass, problems)};
  if (pass.info().id == kTrainId && json.is_object() && json.contains("during")) {
    const std::string pointer = join_pointer(where, "during");
    read_steps(json["during"], pointer, registry, step.during, problems);
    for (size_t i = 0; i < step.during.size(); ++i) {
      if (step.during[i].pass->is_hook()) continue;
      problems.add(join_pointer(pointer, i),
                   fmt::format("{} does not work during training", step.during[i].pass->info().id),
                   "make it a step of its own, before or after the training");
    }
  }
  steps.push_back(std::move(step));
}

// {"train": {...}}.
void read_train_step(const Json& json, const std::string& where, const PassRegistry& registry,
                     std::vector<Step>& steps, Problems& problems) {
  const Pass* trainer = registry.find(kTrainId);
  const std::string pointer = join_pointer(where, "train");
  for (const auto& [key, value] : json.items()) {
    if (key == "train") continue;
    problems.add(join_pointer(where, key), fmt::format("unknown key `{}` beside `train`", key),
                 "the options of the training stand inside of it");
  }
  if (trainer == nullptr) {
    problems.add(pointer, "these passes have no trainer among them");
  } else {
    read_pass(json["train"], pointer, *trainer, registry, steps, problems);
  }
}

void read_step(const Json& json, const std::string& where, const PassRegistry& registry,
               std::vector<Step>& steps, Problems& problems) {
  if (!json.is_object()) {
    problems.add(where, fmt::format("{} is not a step", brief(json)),
                 "a step looks like {\"pass\": \"prune.magnitude\", \"sparsity\": 0.5}");
    return;
  }
  if (json.contains("train")) return read_train_step(json, where, registry, steps, problems);
  if (!json.contains("pass")) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : json.items()) keys.push_back(key);
    const bool mistyped = nearest("pass", keys) != "";
    problems.add(where, "a step without `pass`",
                 mistyped ? fmt::format("is `{}` meant to be `pass`?", nearest("pass", keys))
                          : "add \"pass\" with the id of a pass");
    return;
  }
  const std::string pointer = join_pointer(where, "pass");
  if (!json["pass"].is_string()) {
    problems.add(pointer, fmt::format("{} is not the id of a pass", brief(json["pass"])));
    return;
  }
  try {
    const Pass& pass = registry.at(json["pass"].get<std::string>());
    read_pass(json, where, pass, registry, steps, problems);
  } catch (const Error& unknown) {
    problems.add(pointer, unknown.message(), unknown.hint());
  }
}

void read_steps(const Json& json, const std::string& where, const PassRegistry& registry,
                std::vector<Step>& steps, Problems& problems) {
  if (!json.is_array()) {
    problems.add(where, fmt::format("{} is not a list of steps", brief(json)));
    return;
  }
  for (size_t i = 0; i < json.size(); ++i) {
    read_step(json[i], join_pointer(where, i), registry, steps, problems);
  }
}

Json step_json(const Step& step) {
  const std::string_view id = step.pass->info().id;
  Json options = step_options_json(step);
  if (id == kTrainId) return {{std::string(id), std::move(options)}};
  Json json = {{"pass", id}};
  json.update(options);
  return json;
}

void read_section(const Json& json, const char* key, Json& out, Problems& problems) {
  if (!json.contains(key)) return;
  out = json[key];
  if (!out.is_object()) {
    problems.add(std::string("/") + key, fmt::format("{} is not an object", brief(out)));
  }
}

void read_top_level(const Json& json, Recipe& recipe, Problems& problems) {
  for (const auto& [key, value] : json.items()) {
    if (std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end()) continue;
    const std::string hint = did_you_mean(key, kKeys);
    problems.add(
        join_pointer("", key), fmt::format("unknown key `{}`", key),
        hint.empty() ? fmt::format("the keys of a recipe are {}", fmt::join(kKeys, ", ")) : hint);
  }
  read_version(json, problems);
  if (json.contains("name")) {
    if (json["name"].is_string()) {
      recipe.name = json["name"].get<std::string>();
    } else {
      problems.add("/name", fmt::format("{} is not a text", brief(json["name"])));
    }
  }
  if (json.contains("seed")) {
    const Json& seed = json["seed"];
    // Within int64, so that every reader of JSON keeps it.
    const bool whole = seed.is_number_integer() && seed >= 0 &&
                       seed.get<uint64_t>() <= uint64_t(std::numeric_limits<int64_t>::max());
    if (whole) {
      recipe.seed = seed.get<uint64_t>();
    } else {
      problems.add("/seed", fmt::format("{} is not a whole number from 0", brief(seed)));
    }
  }
  read_section(json, "data", recipe.data, problems);
  read_section(json, "evaluate", recipe.evaluate, problems);
}

bool looks_like_line(const std::string& text) {
  const std::filesystem::path path(text);
  return path.extension() != ".json" && text.find('/') == text.npos &&
         text.find('.') != text.npos && text.size() < 65536;
}

}  // namespace

std::string origin_of(const Origins& origins, const std::string& pointer) {
  for (size_t end = pointer.size(); end != 0 && end != pointer.npos;
       end = pointer.rfind('/', end - 1)) {
    const auto found = origins.find(pointer.substr(0, end));
    if (found != origins.end()) return found->second + pointer.substr(end);
  }
  return pointer;
}

std::string place_of_step(const Recipe& recipe, size_t step) {
  const std::string pointer = fmt::format("/steps/{}", step);
  const std::string origin = origin_of(recipe.origins, pointer);
  return origin == pointer && !recipe.file.empty() ? recipe.file + ": " + pointer : origin;
}

Problems at_origins(const Problems& problems, const Origins& origins) {
  Problems moved;
  for (const Error& problem : problems.list()) {
    moved.add(Error(problem.code(), problem.message(), origin_of(origins, problem.where()),
                    problem.hint()));
  }
  return moved;
}

Recipe read_recipe(const RecipeSource& source, const PassRegistry& registry,
                   const SectionReader& read_sections) {
  Recipe recipe;
  recipe.file = source.file;
  Problems problems;
  const Json& json = source.json;
  if (!json.is_object()) {
    problems.add("", fmt::format("a recipe is an object, not {}", brief(json)));
    problems.throw_if_any(source.file);
  }
  read_top_level(json, recipe, problems);
  if (!json.contains("steps")) {
    problems.add("/steps", "the list of steps is missing");
  } else if (json["steps"].is_array() && json["steps"].empty()) {
    problems.add("/steps", "a recipe needs at least one step");
  } else {
    read_steps(json["steps"], "/steps", registry, recipe.steps, problems);
  }
  if (read_sections) read_sections(recipe, problems);
  at_origins(problems, source.origins).throw_if_any(source.file);
  recipe.origins = source.origins;
  return recipe;
}

Recipe load_recipe(const std::string& file_or_line, const PassRegistry& registry,
                   const std::vector<std::string>& settings, const SectionReader& read_sections) {
  std::error_code ignored;
  if (file_or_line.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "is empty", "the recipe",
                "name a file, or passes in one line: prune.magnitude{sparsity=0.5}");
  }
  const bool is_line =
      file_or_line.find('{') != file_or_line.npos ||
      (looks_like_line(file_or_line) && !std::filesystem::exists(file_or_line, ignored));
  if (!is_line) {
    return read_recipe(load_recipe_source(file_or_line, settings), registry, read_sections);
  }
  RecipeSource source{{}, parse_recipe_line(file_or_line), {}};
  apply_settings(source, settings);
  return read_recipe(source, registry, read_sections);
}

Json recipe_json(const Recipe& recipe) {
  Json json = {{"lathe", kVersion}};
  if (!recipe.name.empty()) json["name"] = recipe.name;
  json["seed"] = recipe.seed;
  if (!recipe.data.is_null()) json["data"] = recipe.data;
  Json steps = Json::array();
  for (const Step& step : recipe.steps) steps.push_back(step_json(step));
  json["steps"] = std::move(steps);
  if (!recipe.evaluate.is_null()) json["evaluate"] = recipe.evaluate;
  return json;
}

Json step_options_json(const Step& step, WriteOptions which) {
  Json options = write_options(*step.options, *step.pass->default_options(), which);
  if (step.during.empty()) return options;
  Json during = Json::array();
  for (const Step& hook : step.during) {
    Json one = {{"pass", hook.pass->info().id}};
    one.update(step_options_json(hook, which));
    during.push_back(std::move(one));
  }
  options["during"] = std::move(during);
  return options;
}

std::string print_recipe(const Recipe& recipe) { return recipe_json(recipe).dump(2) + "\n"; }

}  // namespace compress
