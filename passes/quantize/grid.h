// Where the codes of a quantizer lie, as an option.

#pragma once

#include <string_view>
#include <vector>

namespace compress {

enum class Grid {
  kSymmetric,  ///< around zero
  kAffine,     ///< with a zero point where the range is lopsided
};
inline std::vector<std::string_view> option_names(Grid) { return {"symmetric", "affine"}; }

}  // namespace compress
