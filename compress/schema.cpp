// Everything here follows from the cards and options of the passes.

#include "compress/schema.h"

#include "compress/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace compress {
namespace {

// Any option may be written as a variable, whatever its type.
Json or_variable(Json schema) {
  const Json variable = {{"$ref", "#/$defs/variable"}};
  Json either = Json::object();
  for (const char* outer : {"description", "default"}) {
    if (schema.contains(outer)) either[outer] = schema[outer];
    schema.erase(outer);
  }
  either["anyOf"] = Json::array({schema, variable});
  return either;
}

// The same for all properties and elements within.
Json with_variables(const Json& schema) {
  if (!schema.is_structured()) return schema;
  Json out = schema;
  for (auto& [key, part] : out.items()) {
    if (key == "default") continue;
    part = with_variables(part);
    if (key == "items") part = or_variable(part);
    if (key != "properties") continue;
    for (auto& property : part) property = or_variable(property);
  }
  return out;
}

Json step_schema(const Pass& pass) {
  const Json options = options_schema(*pass.default_options());
  Json properties = {{"pass", {{"const", pass.info().id}}}};
  for (const auto& [name, schema] : options["properties"].items()) {
    properties[name] = or_variable(with_variables(schema));
  }
  return {{"description", pass.info().summary},
          {"type", "object"},
          {"properties", properties},
          {"required", Json::array({"pass"})},
          {"additionalProperties", false}};
}

// {"train": {options, "during": [hooks]}}.
Json train_schema(const Pass& pass, const Json& hooks) {
  Json options = step_schema(pass);
  options["properties"].erase("pass");
  options["properties"]["during"] = {{"description", "Passes that work during the training."},
                                     {"type", "array"},
                                     {"items", {{"anyOf", hooks}}}};
  options.erase("required");
  return {{"type", "object"},
          {"properties", {{std::string(kTrainId), options}}},
          {"required", Json::array({std::string(kTrainId)})},
          {"additionalProperties", false}};
}

std::string needs_text(Needs needs) {
  std::vector<std::string_view> words = {"weights"};
  if (has(needs, Needs::kInputs)) words.push_back("calibration inputs");
  if (has(needs, Needs::kLabels)) words.push_back("labels");
  if (has(needs, Needs::kGradients)) words.push_back("gradients");
  if (has(needs, Needs::kTraining)) words.push_back("training");
  return fmt::format("{}", fmt::join(words, ", "));
}

std::string keeps_text(Keeps keeps) {
  std::vector<std::string_view> words;
  if (has(keeps, Keeps::kShapes)) words.push_back("shapes");
  if (has(keeps, Keeps::kDtypes)) words.push_back("dtypes");
  if (has(keeps, Keeps::kOutputs)) words.push_back("outputs");
  return words.empty() ? "nothing" : fmt::format("{}", fmt::join(words, ", "));
}

std::string locality_text(const Pass& pass) {
  return pass.locality_any(*pass.default_options()) == Locality::kTensor ? "one weight at a time"
                                                                         : "the whole model";
}

}  // namespace

Json recipe_schema(const PassRegistry& registry, const std::map<std::string, Json>& sections) {
  Json definitions = {{"variable", {{"type", "string"}, {"pattern", "\\$\\{[^}]+\\}"}}},
                      {"selector", selector_schema()}};
  Json choices = Json::array(), hooks = Json::array();
  for (const Pass* pass : registry.passes()) {
    const std::string id(pass->info().id);
    if (id != kTrainId) definitions[id] = step_schema(*pass);
    (pass->is_hook() ? hooks : choices).push_back({{"$ref", "#/$defs/" + id}});
  }
  if (const Pass* trainer = registry.find(kTrainId)) {
    definitions[std::string(kTrainId)] = train_schema(*trainer, hooks);
  }
  const Json file = {{"type", "string"}};
  const Json files = {{"type", "array"}, {"items", file}};
  Json properties = {
      {"$schema", {{"type", "string"}}},
      {"lathe", {{"description", "Version of the recipe format."}, {"const", 1}}},
      {"name", {{"type", "string"}}},
      {"seed",
       or_variable(
           {{"description", "Of everything random."}, {"type", "integer"}, {"minimum", 0}})},
      {"include",
       {{"description", "Recipes whose steps come first."}, {"anyOf", Json::array({file, files})}}},
      {"variables", {{"description", "Values for ${name}."}, {"type", "object"}}},
      {"data", {{"description", "Named data entries."}, {"type", "object"}}},
      {"steps", {{"type", "array"}, {"items", {{"anyOf", choices}}}}},
      {"evaluate", {{"description", "Data and metrics of the result."}, {"type", "object"}}}};
  for (const auto& [name, section] : sections) properties[name].update(with_variables(section));
  return {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
          {"title", "Lathe recipe"},
          {"type", "object"},
          {"properties", properties},
          {"required", Json::array({"lathe"})},
          {"additionalProperties", false},
          {"$defs", definitions}};
}

std::string pass_help(const Pass& pass) {
  const PassInfo& info = pass.info();
  return fmt::format("{}: {}\n  needs {}; keeps {}; sees {}\n\n{}", info.id, info.summary,
                     needs_text(info.needs), keeps_text(info.keeps), locality_text(pass),
                     options_help(*pass.default_options()));
}

std::string pass_path(const Pass& pass) {
  std::string path(pass.info().id);
  std::replace(path.begin(), path.end(), '.', '/');
  return path;
}

std::string pass_page(const Pass& pass) {
  const PassInfo& info = pass.info();
  const std::string path = pass_path(pass);
  std::string page = fmt::format("# `{}`\n\n{}.\n\n", info.id, info.summary);
  if (!info.paper.empty()) page += fmt::format("{}.\n\n", info.paper);
  page += fmt::format("| needs | keeps | sees |\n| --- | --- | --- |\n| {} | {} | {} |\n\n",
                      needs_text(info.needs), keeps_text(info.keeps), locality_text(pass));
  const std::unique_ptr<AnyOptions> defaults = pass.default_options();
  const Json all = write_options(*defaults, *defaults);
  page += "## Options\n\n";
  page += all.empty() ? "None.\n" : options_table(*defaults);
  if (info.id == kTrainId) {
    return page +
           "\n## Use\n\n[docs/training.md](../training.md) explains it; recipes are in "
           "[recipes/train](../../recipes/train), the loop is "
           "[compress/train/trainer.cpp](../../compress/train/trainer.cpp).\n";
  }
  const std::string step = std::string(info.id) + (all.empty() ? "" : line_value(all));
  if (pass.is_hook()) {
    Json use = {{"pass", info.id}};
    use.update(all);
    page +=
        "\n## Use\n\nUnder `during` of a `train` step:\n\n```json\n" + use.dump(2) + "\n```\n\n";
  } else {
    page += fmt::format("\n## Use\n\n```\nlathe apply '{}' MODEL -o OUT\n```\n\n", step);
  }
  page += fmt::format(
      "Recipe: [recipes/{0}.json](../../../recipes/{0}.json), source: "
      "[passes/{0}.cpp](../../../passes/{0}.cpp).\n",
      path);
  return page;
}

}  // namespace compress
