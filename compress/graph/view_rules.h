// What operators do to memory: which ones look at their argument's, and which change it.

#pragma once

#include "compress/graph/graph.h"

#include <string>

namespace compress {

/// How the first output of an operator relates to the memory of its first argument.
enum class ViewKind {
  kNone,    ///< memory of its own
  kExact,   ///< a view; a change of it can be written back into what it views
  kOneWay,  ///< a view; a change of it cannot be written back (`expand`)
  kBridge,  ///< a view or a copy, which only a run decides (`reshape`, `contiguous`)
  kSame,    ///< the very same tensor under another name (the result of an in-place operator)
};

ViewKind view_kind(const Node& node);

/// What `base` holds once output `index` of `view`, an exact view of it, holds `contents`; nodes
/// for it are inserted before `before`. Null where numbers needed for it are unknown.
Value* insert_write_back(Graph& graph, Node* before, const Node& view, size_t index, Value* base,
                         Value* contents);

/// The operator that computes what an in-place one would leave behind; empty if there is none with
/// the same arguments.
std::string functional_twin(const std::string& op);

/// In-place operators that change sizes and strides, not contents: `unsqueeze_`, `detach_`.
bool changes_metadata(const Node& node);

/// Batch norms whose schema admits that they update their statistics: that stays what they do.
bool updates_own_statistics(const Node& node);

/// Functional operators whose result has the dtype of the first argument whatever the others are.
bool keeps_dtype_of_self(const std::string& op);

}  // namespace compress
