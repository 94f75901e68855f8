// The passes that a recipe can name.

#pragma once

#include "compress/pass.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// Owns pass objects, sorted by id. `builtin_passes()` (passes/registry.h) has those of this build;
/// a program may add its own.
class PassRegistry {
 public:
  /// Throws std::logic_error if the card's id is not `expected_id` (when given) or is taken.
  void add(std::unique_ptr<Pass> pass, std::string_view expected_id = {});
  /// The pass of that id, or null.
  const Pass* find(std::string_view id) const;
  /// Throws Error(kInvalidArgument) with the nearest id.
  const Pass& at(std::string_view id) const;
  std::vector<std::string> ids() const;
  std::vector<const Pass*> passes() const;

 private:
  std::vector<std::unique_ptr<Pass>> passes_;
};

}  // namespace compress
