// What the graph asks of an operator's schema.

#pragma once

#include "compress/graph/graph.h"

#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// The arguments of a call in the schema's order with defaults filled in. A single int where the
/// schema wants `int[2]` is expanded. Throws Error(kInvalidArgument) for a missing, surplus or
/// unknown argument.
std::vector<Argument> complete_arguments(const c10::FunctionSchema& schema,
                                         std::vector<Argument> positional,
                                         const std::map<std::string, Argument>& keywords);

/// The schema's default for argument `index`, if it has one.
std::optional<Argument> default_argument(const c10::FunctionSchema& schema, size_t index);

/// The kinds of a call's outputs; a returned list counts `list_size` tensors.
std::vector<ValueKind> return_kinds(const c10::FunctionSchema& schema, size_t list_size);

/// Whether the operator returns a list of tensors.
bool returns_list(const c10::FunctionSchema& schema);

/// `conv2d` of `aten::conv2d`, `add` of `aten::add.Tensor`.
std::string base_name(const std::string& op);

/// `aten::add` of a call of `aten::add.Tensor`.
std::string_view base_op(const Node& node);

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words);

/// Whether a node does more than compute its outputs: an in-place operator, or batch norm in
/// training mode, which updates its running statistics.
bool has_side_effect(const Node& node);

}  // namespace compress
