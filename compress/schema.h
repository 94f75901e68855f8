// What is generated from the registry: the JSON schema of recipes, help and pages of passes.

#pragma once

#include "compress/registry.h"

#include <nlohmann/json.hpp>

#include <string>

namespace compress {

/// JSON schema (draft 2020-12) of a recipe with the passes of `registry`.
Json recipe_schema(const PassRegistry& registry);

/// Help for the terminal: summary, what it needs and keeps, options.
std::string pass_help(const Pass& pass);

/// The Markdown page docs/passes/<family>/<name>.md.
std::string pass_page(const Pass& pass);

/// `prune/magnitude`: where a pass's source, test, recipe and page are, without folder and ending.
std::string pass_path(const Pass& pass);

}  // namespace compress
