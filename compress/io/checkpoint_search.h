// Finds the state_dict inside what a training script saved.

#pragma once

#include "compress/io/state_dict.h"
#include "compress/io/torch_file.h"

namespace compress::detail {

/// Collects the named tensors of `file`: unwraps `state_dict`, `model` and the like, opens pickled
/// modules without running them, leaves out optimizer state, and notes all of it. Throws
/// `kUnsupported` if there are no tensors.
StateDict find_state_dict(const TorchFile& file, const std::string& name);

}  // namespace compress::detail
