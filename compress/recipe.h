// Recipes: which passes to run on which data, as JSON or as one line.
//
//   {"lathe": 1, "name": "half", "seed": 1,
//    "data": {...}, "steps": [{"pass": "prune.magnitude", "sparsity": 0.5}], "evaluate": {...}}
//
// A step that trains is {"train": {"epochs": 5, ..., "during": [{"pass": "prune.gradual"}]}}.
//
//   prune.magnitude{sparsity=0.5},quantize.weights{bits=4}
//
// Strict: whatever is unknown, of a wrong type or out of range is an error with its JSON pointer,
// and all errors are reported together, before any work.

#pragma once

#include "compress/json.h"
#include "compress/options.h"
#include "compress/registry.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// A step of a recipe: a pass with its options. The pass belongs to the registry it was found in.
struct Step {
  const Pass* pass = nullptr;
  std::shared_ptr<const AnyOptions> options;
  std::vector<Step> during = {};  ///< of a train step: the passes that work in it
};
/// The id of the pass that trains; in JSON its step is {"train": {...}}.
inline constexpr std::string_view kTrainId = "train";

/// Where parts of a recipe come from that other files have brought: by their pointers in the merged
/// recipe, `FILE: POINTER`.
using Origins = std::map<std::string, std::string>;

/// Where `pointer` comes from, else itself.
std::string origin_of(const Origins& origins, const std::string& pointer);
/// The problems, each at its origin.
Problems at_origins(const Problems& problems, const Origins& origins);

struct Recipe;
/// `FILE: /steps/I`, as far as there are files.
std::string place_of_step(const Recipe& recipe, size_t step);

struct Recipe {
  std::string file;  ///< where it was read from, for messages; may be empty
  std::string name;
  uint64_t seed = 0;
  Json data;      ///< object: named data entries, read by compress/data; null when absent
  Json evaluate;  ///< object: data and metrics of the evaluation; null when absent
  std::vector<Step> steps;
  Origins origins;  ///< of what came by an include
};

/// A recipe's JSON with what surrounds it: includes, settings and variables.
struct RecipeSource {
  std::string file;
  Json json;
  Origins origins;  ///< of what came by an include, and of steps that are counted on behind it
};

/// Reads a recipe file, merges the files that it includes, applies `settings` and fills variables
/// in.
///
/// - `"include": "base.json"` (or a list; relative to the including file): the steps of the
/// included
///   recipes come first, in order; entries of `data` and `variables` are merged and the including
///   file's win; so do its `name`, `seed` and `evaluate`. Cycles and more than 8 levels are
///   refused.
/// - A setting is `path=value`: `steps.0.sparsity=0.4`, `seed=3`, `variables.rate=0.5`. The path
///   counts in the merged recipe; the value is JSON, or else a string. Only the last name of a path
///   may be new. Settings come before variables are filled in.
/// - `"variables": {"rate": 0.5}` and `"${rate}"`: a string that is one variable becomes its value
///   of any type; inside of a longer string its text is put in. `$${` stands for `${`.
///
/// Throws Error with file and pointer or, for settings, the setting.
RecipeSource load_recipe_source(const std::filesystem::path& file,
                                const std::vector<std::string>& settings = {});
/// The same of a text that stands in for `file`.
RecipeSource parse_recipe_source(std::string_view text, const std::string& file = {},
                                 const std::vector<std::string>& settings = {});

/// What `load_recipe_source` does after merging: settings, then variables.
void apply_settings(RecipeSource& source, const std::vector<std::string>& settings);

/// Reads what a recipe holds besides its steps (the sections `data` and `evaluate`), so that its
/// problems are told together with those of the steps.
using SectionReader = std::function<void(const Recipe&, Problems&)>;

/// Checks and reads a recipe. Throws Error(kInvalidArgument) with all problems.
Recipe read_recipe(const RecipeSource& source, const PassRegistry& registry,
                   const SectionReader& read_sections = {});

/// Reads a recipe file; or, when `file_or_line` names no file and looks like one, a line of passes.
Recipe load_recipe(const std::string& file_or_line, const PassRegistry& registry,
                   const std::vector<std::string>& settings = {},
                   const SectionReader& read_sections = {});

/// The canonical JSON: every option of every pass, in declared order. Reading it gives the same
/// recipe.
Json recipe_json(const Recipe& recipe);
/// The same as text with two spaces of indentation and a newline at the end.
std::string print_recipe(const Recipe& recipe);

/// One line of passes as the JSON of a recipe: `a.b{x=1,y={name=c*}},c.d`. Values are numbers,
/// true, false, null, words, "text" with JSON's escapes, [lists] and {objects}. Throws
/// Error(kInvalidArgument) with the column.
Json parse_recipe_line(std::string_view line);
/// The steps as one line, with the options that differ from their defaults; what a line can't hold
/// (data, evaluate, seed, name) is left out.
std::string print_recipe_line(const Recipe& recipe);
/// The same of one step.
std::string print_step(const Step& step);
/// The options of one step as JSON, with those of its `during`.
Json step_options_json(const Step& step, WriteOptions which = WriteOptions::kAll);

}  // namespace compress
