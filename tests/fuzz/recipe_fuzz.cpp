// Recipes, as JSON and as a line: what reads prints to a text that reads to the same.

#include "compress/error.h"
#include "compress/recipe.h"
#include "passes/registry.h"
#include "tests/fuzz/require.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>

namespace {

using namespace compress;

void check(const RecipeSource& source) {
  static const PassRegistry registry = builtin_passes();
  Recipe recipe;
  try {
    recipe = read_recipe(source, registry);
  } catch (const Error&) {
    return;
  }
  // From here on an Error is a finding.
  const std::string printed = print_recipe(recipe);
  RecipeSource plain{{}, parse_json(printed), {}};
  FUZZ_REQUIRE(print_recipe(read_recipe(plain, registry)) == printed);
  const std::string line = print_recipe_line(recipe);
  const RecipeSource from_line{{}, parse_recipe_line(line), {}};
  const Recipe again = read_recipe(from_line, registry);
  FUZZ_REQUIRE(print_recipe_line(again) == line);
  FUZZ_REQUIRE(recipe_json(again)["steps"] == recipe_json(recipe)["steps"]);
}

// Includes would read whatever files the machine has.
bool includes_files(const Json& json) { return json.is_object() && json.contains("include"); }

template <class Parse>
std::optional<RecipeSource> source_of(const Parse& parse) {
  try {
    return parse();
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = source_of([&] {
    const bool skip = includes_files(parse_json(text));
    return skip ? RecipeSource() : parse_recipe_source(text);
  });
  if (json) check(*json);
  const auto line = source_of([&] { return RecipeSource{{}, parse_recipe_line(text), {}}; });
  if (line) check(*line);
  return 0;
}
