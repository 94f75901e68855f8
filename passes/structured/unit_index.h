// From a class of indices to the units that take it along.

#pragma once

#include "compress/graph/channels.h"

#include <cstddef>
#include <vector>

namespace compress {

/// A channel of a query goes with its head, and with the same channel of all heads: a class may
/// belong to several units.
class UnitIndex {
 public:
  struct Place {
    size_t group, unit;
  };

  explicit UnitIndex(const ChannelGroups& groups) {
    const auto& list = groups.groups();
    for (size_t g = 0; g < list.size(); ++g) {
      for (size_t u = 0; u < list[g].units.size(); ++u) {
        for (const ChannelClass channel : list[g].units[u].classes) {
          const auto index = static_cast<size_t>(channel);
          if (index >= places_.size()) places_.resize(index + 1);
          places_[index].push_back({g, u});
        }
      }
    }
  }

  const std::vector<Place>& of(ChannelClass channel) const {
    const auto index = static_cast<size_t>(channel);
    return index < places_.size() ? places_[index] : none_;
  }

 private:
  std::vector<std::vector<Place>> places_;
  std::vector<Place> none_;
};

}  // namespace compress
