// The version of Lathe, as CMake knows it.

#include "compress/version.h"

namespace compress {

std::string_view version() { return LATHE_VERSION; }

}  // namespace compress
