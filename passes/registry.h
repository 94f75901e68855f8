// All passes of this build.

#pragma once

#include "compress/registry.h"

namespace compress {

/// A registry with the trainer and every pass that passes/CMakeLists.txt names.
PassRegistry builtin_passes();

}  // namespace compress
