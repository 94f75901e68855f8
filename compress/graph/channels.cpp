// Coupled channels: sets of them, and what they cut.

#include "compress/graph/channels.h"

#include "compress/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

namespace compress {

bool ChannelSet::empty() const { return std::find(gone.begin(), gone.end(), true) == gone.end(); }

int32_t ChannelGroups::array_of(const Value* value, int64_t dim) const {
  const auto found = dims_.find(value);
  COMPRESS_CHECK(found != dims_.end(), "a value that was not analysed");
  return found->second.at(static_cast<size_t>(dim));
}

ChannelSet ChannelGroups::none() const {
  ChannelSet set;
  set.gone.resize(first_place_.size() - 1, false);
  for (const auto& array : arrays_) set.left.push_back(static_cast<int64_t>(array.size()));
  return set;
}

bool ChannelGroups::add(ChannelSet& set, const ChannelUnit& unit) const {
  const auto each_place = [&](auto&& visit) {
    for (const ChannelClass channel : unit.classes) {
      if (set.gone[channel]) continue;
      for (size_t i = first_place_[channel]; i < first_place_[channel + 1]; ++i) {
        visit(set.left[places_[i].array]);
      }
    }
  };
  bool empties = false;
  each_place([&](int64_t& left) { empties |= --left <= 0; });
  if (empties) {
    each_place([](int64_t& left) { ++left; });
    return false;
  }
  for (const ChannelClass channel : unit.classes) set.gone[channel] = true;
  return true;
}

bool ChannelGroups::add(ChannelSet& set, const std::vector<ChannelClass>& classes) const {
  std::vector<bool> gone = set.gone;
  for (const ChannelClass channel : classes) {
    if (channel <= 0 || channel >= static_cast<ChannelClass>(gone.size())) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("channel class {} cannot go, expected 1 to {}", channel, gone.size() - 1));
    }
    gone[channel] = true;
  }
  if (!is_closed(gone)) {
    throw Error(ErrorCode::kInvalidArgument,
                "the channels need others to go with them, or to stay for them", {},
                "choose whole units");
  }
  return add(set, ChannelUnit{classes});
}

bool ChannelGroups::is_closed(const std::vector<bool>& gone) const {
  for (const Product& product : products_) {
    for (size_t j = 0; j < product.flat.size(); ++j) {
      bool any = false;
      size_t rest = j;
      for (size_t e = product.factors.size(); e-- > 0;) {
        any = any || gone[product.factors[e][rest % product.factors[e].size()]];
        rest /= product.factors[e].size();
      }
      if (any != gone[product.flat[j]]) return false;
    }
  }
  return true;
}

std::vector<ChannelCut> ChannelGroups::cuts(const ChannelUnit& unit) const {
  std::map<int32_t, std::vector<int64_t>> by_array;
  for (const ChannelClass channel : unit.classes) {
    for (size_t i = first_place_[channel]; i < first_place_[channel + 1]; ++i) {
      const Place place = places_[i];
      if (named_[place.array].first != nullptr) by_array[place.array].push_back(place.index);
    }
  }
  std::vector<ChannelCut> cuts;
  for (auto& [array, indices] : by_array) {
    std::sort(indices.begin(), indices.end());
    cuts.push_back({named_[array].first, named_[array].second, std::move(indices)});
  }
  return cuts;
}

const std::vector<ChannelClass>& ChannelGroups::classes(const Value* value, int64_t dim) const {
  return arrays_[array_of(value, dim)];
}

int64_t ChannelGroups::rank(const Value* value) const {
  const auto found = dims_.find(value);
  return found == dims_.end() ? 0 : static_cast<int64_t>(found->second.size());
}

int64_t ChannelGroups::left(const ChannelSet& set, const Value* value, int64_t dim) const {
  return set.left[array_of(value, dim)];
}

bool ChannelGroups::is_cut(const ChannelSet& set, const Value* value, int64_t dim) const {
  const int32_t array = array_of(value, dim);
  return set.left[array] < static_cast<int64_t>(arrays_[array].size());
}

bool ChannelGroups::is_cut(const ChannelSet& set, const Value* value) const {
  const auto found = dims_.find(value);
  return found != dims_.end() &&
         std::any_of(found->second.begin(), found->second.end(), [&](int32_t array) {
           return set.left[array] < static_cast<int64_t>(arrays_[array].size());
         });
}

std::vector<int64_t> ChannelGroups::kept(const ChannelSet& set, const Value* value,
                                         int64_t dim) const {
  const std::vector<ChannelClass>& classes = this->classes(value, dim);
  std::vector<int64_t> kept;
  for (size_t i = 0; i < classes.size(); ++i) {
    if (!set.gone[classes[i]]) kept.push_back(static_cast<int64_t>(i));
  }
  return kept;
}

std::string print(const ChannelGroup& group) {
  std::vector<std::string> dims;
  for (const ChannelDim& dim : group.dims) {
    dims.push_back(fmt::format("{}[{}]", dim.tensor->name(), dim.dim));
    if (dim.indices_each > 1) dims.back() += fmt::format(" x{}", dim.indices_each);
  }
  return fmt::format("{} units of {} parameters: {}{}{}", group.units.size(), group.parameters_each,
                     fmt::join(dims, ", "), group.exact() ? "" : "; ", group.why_inexact);
}

}  // namespace compress
