// Arithmetic on sizes: the `scalar::` operators of a graph.

#pragma once

#include <string>
#include <vector>

namespace c10 {
struct IValue;
}

namespace compress {

/// Whether there is a scalar operator of that name (`scalar::mul`).
bool is_scalar_op(const std::string& op);

/// Applies a scalar operator with Python's rules (floor division rounds down, true division gives a
/// float). Throws Error(kUnsupported) for an unknown operator and Error(kRunFailed) for a division
/// by zero or a wrong number of arguments.
c10::IValue apply_scalar_op(const std::string& op, const std::vector<c10::IValue>& arguments);

}  // namespace compress
