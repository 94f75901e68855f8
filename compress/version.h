// The version of Lathe.

#pragma once

#include <string_view>

namespace compress {

/// `0.1.0`
std::string_view version();

}  // namespace compress
