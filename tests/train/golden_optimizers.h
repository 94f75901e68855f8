// tests/golden/optimizers.json: what Python's torch computed, and the options it was asked for.

#pragma once

#include "compress/options_nested.h"
#include "tests/support/paths.h"

#include <nlohmann/json.hpp>

#include <fstream>
#include <iterator>
#include <string>

namespace compress::testing {

inline Json golden_optimizers() {
  std::ifstream file(source_dir() / "tests/golden/optimizers.json");
  return parse_json(std::string(std::istreambuf_iterator<char>(file), {}));
}

/// Reads a choice as a recipe would.
template <class Choice>
Choice read_choice(const Json& json) {
  Choice choice;
  Problems problems;
  using detail::option_type;
  option_type(static_cast<const Choice*>(nullptr)).read(json, "", &choice, problems);
  problems.throw_if_any(json.dump());
  return choice;
}

}  // namespace compress::testing
