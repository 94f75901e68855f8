// A sorted list of passes.

#include "compress/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace compress {

void PassRegistry::add(std::unique_ptr<Pass> pass, std::string_view expected_id) {
  const std::string_view id = pass->info().id;
  COMPRESS_CHECK(expected_id.empty() || id == expected_id,
                 fmt::format("the card of {} says {}", expected_id, id));
  COMPRESS_CHECK(find(id) == nullptr, fmt::format("two passes are called {}", id));
  const auto position = std::find_if(passes_.begin(), passes_.end(),
                                     [&](const auto& other) { return other->info().id > id; });
  passes_.insert(position, std::move(pass));
}

const Pass* PassRegistry::find(std::string_view id) const {
  const auto found = std::find_if(passes_.begin(), passes_.end(),
                                  [&](const auto& pass) { return pass->info().id == id; });
  return found == passes_.end() ? nullptr : found->get();
}

const Pass& PassRegistry::at(std::string_view id) const {
  if (const Pass* pass = find(id)) return *pass;
  const std::vector<std::string> known = ids();
  std::vector<std::string> family;
  for (const std::string& one : known) {
    if (one.starts_with(fmt::format("{}.", id))) family.push_back(one);
  }
  std::string hint = family.empty() ? did_you_mean(id, known)
                                    : fmt::format("there are {}", fmt::join(family, ", "));
  if (hint.empty()) hint = fmt::format("the passes are {}", fmt::join(known, ", "));
  throw Error(ErrorCode::kInvalidArgument, fmt::format("there is no pass `{}`", id), "", hint);
}

std::vector<std::string> PassRegistry::ids() const {
  std::vector<std::string> ids;
  for (const auto& pass : passes_) ids.emplace_back(pass->info().id);
  return ids;
}

std::vector<const Pass*> PassRegistry::passes() const {
  std::vector<const Pass*> list;
  for (const auto& pass : passes_) list.push_back(pass.get());
  return list;
}

}  // namespace compress
