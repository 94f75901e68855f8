// What is generated from the registry: the JSON schema of recipes, help and pages of passes.

#pragma once

#include "compress/registry.h"

#include <nlohmann/json.hpp>

#include <map>
#include <string>

namespace compress {

/// JSON schema (draft 2020-12) of a recipe with the passes of `registry`. `sections` describe what
/// others read of it, `data` and `evaluate`; their values may be variables like all others.
Json recipe_schema(const PassRegistry& registry, const std::map<std::string, Json>& sections = {});

/// Help for the terminal: summary, what it needs and keeps, options.
std::string pass_help(const Pass& pass);

/// The Markdown page docs/passes/<family>/<name>.md.
std::string pass_page(const Pass& pass);

/// `prune/magnitude`: where a pass's source, test, recipe and page are, without folder and ending.
std::string pass_path(const Pass& pass);

}  // namespace compress
