// zlib without its function `compress`, which collides with our namespace of that name.
//
// To be included in place of <zlib.h>, before anything that includes that one (libpng does).

#pragma once

#define compress zlib_compress  // NOLINT: renames a declaration that nobody here uses
#include <zlib.h>
#undef compress
