// Between arguments of a graph and the boxed values of LibTorch's dispatcher.

#pragma once

#include "compress/graph/argument.h"

#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>

#include <functional>

namespace compress {

/// Looks up what a value holds at run time.
using ValueLookup = std::function<const c10::IValue&(const Value*)>;

/// An argument as the dispatcher wants it for a parameter of `type`: numbers become doubles or
/// wrapped tensors where the schema says so, lists get the right element type.
/// Throws Error(kInvalidArgument) when it cannot be made to fit.
c10::IValue box(const Argument& argument, const c10::TypePtr& type, const ValueLookup& lookup);

}  // namespace compress
