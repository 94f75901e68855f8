// What options of losses are made of: teachers by name, places in two networks.

#pragma once

#include "compress/options_nested.h"

#include <string>
#include <vector>

namespace compress {

/// Which teachers a loss learns from. In a recipe a name, or a list of names.
struct TeacherNames {
  std::vector<std::string> names = {"original"};  ///< at least one, each once
};

/// A place whose activations are compared; see compress/train/taps.h for the texts. In a recipe
/// "layer2" (the same text for both), or {"student": "layer2", "teacher": "layer3"}.
struct TapPair {
  std::string student, teacher;
};

const OptionType& option_type(const TeacherNames*);
const OptionType& option_type(const TapPair*);

/// Adds a problem at `option` unless every pair names two places.
void require_taps(const std::vector<TapPair>& taps, std::string_view option, Problems& problems);

}  // namespace compress
