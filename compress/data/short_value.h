// Values in the short form of data entries on the command line.

#pragma once

#include "compress/json.h"

#include <string_view>

namespace compress::detail {

/// JSON where the text is JSON (`0.5`, `true`, `["a", "b"]`). Within brackets words need no quotes
/// and `=` may stand for `:`, so `[crop,{cutout={size=8}}]` is a list too. Any other text is a
/// string itself. Throws Error(kInvalidArgument) for brackets that do not fit together, and for
/// nesting deeper than 64.
Json short_value(std::string_view text);

}  // namespace compress::detail
