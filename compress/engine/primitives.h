// From a step to a oneDNN primitive.

#pragma once

#include "compress/engine/program.h"

#include <dnnl.hpp>

#include <functional>
#include <string>
#include <vector>

namespace compress::engine {

/// A step that is ready to run.
struct Executable {
  std::string kernel;  ///< what oneDNN chose, or our own name
  dnnl::primitive primitive;
  std::vector<dnnl_exec_arg_t> arguments;
  std::vector<dnnl::memory> owned;  ///< weights, biases, scales, and the memories of slots
  /// Memories whose address is set when it is known: (slot, index into `owned`).
  std::vector<std::pair<size_t, size_t>> slots;
  int64_t scratch_bytes = 0;
  size_t scratch = 0;  ///< index into `owned`
  int64_t weight_bytes = 0;
};

/// Whether the step is a oneDNN primitive (else it is a kernel of ours, or LibTorch's).
bool is_primitive(const Step& step);

/// Creates the primitive, its attributes and packed weights. Throws dnnl::error if oneDNN has no
/// such kernel.
Executable make_executable(const Step& step, const std::vector<Slot>& slots,
                           const dnnl::engine& engine);

}  // namespace compress::engine
