// The only calls that the unpickler knows: how PyTorch describes tensors, and ordered dictionaries.

#pragma once

#include "compress/io/pickle.h"

#include <string>
#include <string_view>

namespace compress::detail {

/// The value of calling `global` with the tuple `arguments`: a tensor, a dict, a list, or an inert
/// object for every other name. Throws `kBadFile` if the arguments of a known one make no sense.
PickleValue call_global(Pickle& pickle, std::string_view global, PickleValue arguments,
                        const std::string& where);

/// The storage that the persistent id `id` (a tuple) names.
PickleValue persistent_storage(Pickle& pickle, PickleValue id, const std::string& where);

}  // namespace compress::detail
