// Channels in order, and as many of them as a budget asks for.

#include "passes/structured/choose_channels.h"

#include "compress/error.h"
#include "compress/weight.h"
#include "passes/structured/unit_index.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

namespace compress {
namespace {

constexpr size_t kMostReasons = 6;

// Which layers are not selected that make a group together with selected ones.
std::vector<std::string> missing_partners(const Model& model, const ChannelGroups& groups,
                                          const ChannelOptions& options) {
  const UnitIndex units(groups);
  struct Makers {
    std::set<std::string> selected, missing;
  };
  std::map<size_t, Makers> of_group;
  for (const Weight& weight : weights(model)) {
    const bool selected = options.where.matches(selector_target(weight));
    for (const ChannelClass channel : groups.classes(weight.value(), weight.output_dim())) {
      for (const UnitIndex::Place& place : units.of(channel)) {
        Makers& makers = of_group[place.group];
        (selected ? makers.selected : makers.missing).insert(weight.name());
      }
    }
  }
  std::vector<std::string> lines;
  for (const auto& [group, makers] : of_group) {
    if (makers.selected.empty() || makers.missing.empty() || lines.size() >= kMostReasons) continue;
    lines.push_back(fmt::format("the channels of {} go with those of {}, to be selected, too",
                                fmt::join(makers.selected, ", "), fmt::join(makers.missing, ", ")));
  }
  return lines;
}

// Why the output channels of the selected layers stay.
std::vector<std::string> reasons(const Model& model, const ChannelGroups& groups,
                                 const ChannelOptions& options) {
  std::vector<std::string> lines = missing_partners(model, groups, options);
  for (const Weight& weight : weights(model)) {
    if (!options.where.matches(selector_target(weight))) continue;
    const std::vector<std::string> sources = weight.sources();
    for (const FrozenChannels& frozen : groups.frozen()) {
      if (frozen.dim != weight.output_dim() || lines.size() >= kMostReasons) continue;
      if (std::find(sources.begin(), sources.end(), frozen.tensor->name()) == sources.end()) {
        continue;
      }
      lines.push_back(fmt::format("{}: {}", frozen.tensor->name(), frozen.why));
    }
  }
  return lines;
}

}  // namespace

std::vector<bool> eligible_groups(const Model& model, const ChannelGroups& groups,
                                  const ChannelOptions& options) {
  const auto& list = groups.groups();
  std::vector<bool> eligible(list.size(), true);
  for (size_t g = 0; g < list.size(); ++g) eligible[g] = !options.exact || list[g].exact();
  if (!options.where.is_everything()) {
    // A group is made by the layers whose output channels it cuts.
    const UnitIndex units(groups);
    std::vector<bool> has_maker(list.size(), false);
    for (const Weight& weight : weights(model)) {
      const bool selected = options.where.matches(selector_target(weight));
      for (const ChannelClass channel : groups.classes(weight.value(), weight.output_dim())) {
        for (const UnitIndex::Place& place : units.of(channel)) {
          has_maker[place.group] = true;
          if (!selected) eligible[place.group] = false;
        }
      }
    }
    for (size_t g = 0; g < list.size(); ++g) {
      if (!has_maker[g]) eligible[g] = false;
    }
  }
  return eligible;
}

std::vector<bool> require_eligible_groups(const Model& model, const ChannelGroups& groups,
                                          const ChannelOptions& options) {
  std::vector<bool> eligible = eligible_groups(model, groups, options);
  if (std::find(eligible.begin(), eligible.end(), true) != eligible.end()) return eligible;
  const auto& list = groups.groups();
  const auto inexact = options.exact
                           ? std::count_if(list.begin(), list.end(),
                                           [](const auto& group) { return !group.exact(); })
                           : 0;
  std::string message = "no channel of the selected layers can go";
  const std::vector<std::string> why = reasons(model, groups, options);
  if (!why.empty()) message += fmt::format(" ({})", fmt::join(why, "; "));
  std::string hint = "`lathe inspect MODEL --groups` shows which channels go together";
  if (inexact > 0)
    hint = fmt::format("{} could go without `exact`; {}",
                       inexact == 1 ? "1 group" : fmt::format("{} groups", inexact), hint);
  throw Error(ErrorCode::kInvalidArgument, message, "where", hint);
}

ChannelOrder::ChannelOrder(const ChannelGroups& groups, const ChannelScores& scores,
                           const std::vector<bool>& eligible, const ChannelOptions& options,
                           const std::vector<int64_t>& gone)
    : groups_(groups), options_(options), ranked_(groups.groups().size()) {
  for (size_t g = 0; g < ranked_.size(); ++g) {
    const std::vector<double>& of_group = scores[g];
    if (!eligible[g] || of_group.empty()) continue;
    std::vector<size_t>& ranked = ranked_[g];
    ranked.resize(of_group.size());
    std::iota(ranked.begin(), ranked.end(), 0);
    std::stable_sort(ranked.begin(), ranked.end(),
                     [&](size_t a, size_t b) { return of_group[a] < of_group[b]; });
    const auto count = static_cast<double>(ranked.size());
    const double before = gone.empty() ? 0 : static_cast<double>(gone[g]);
    for (size_t rank = 0; rank < ranked.size(); ++rank) {
      const double going = static_cast<double>(rank) + 1, share = going / count;
      if ((before + going) / (before + count) > options.most + 1e-12) break;
      const bool by_share = options.scope == ChannelScope::kLayer;
      order_.push_back({by_share ? share : of_group[ranked[rank]], g, rank});
    }
  }
  std::stable_sort(order_.begin(), order_.end(),
                   [](const Entry& a, const Entry& b) { return a.key < b.key; });
}

ChannelSet ChannelOrder::first(size_t count) const {
  std::vector<int64_t> going(ranked_.size(), 0);
  for (size_t i = 0; i < count; ++i) ++going[order_[i].group];
  ChannelSet set = groups_.none();
  for (size_t g = 0; g < ranked_.size(); ++g) {
    const auto all = static_cast<int64_t>(ranked_[g].size());
    int64_t stay = all - going[g];
    stay = (stay + options_.round_to - 1) / options_.round_to * options_.round_to;
    for (int64_t rank = 0; rank < all - stay; ++rank) {
      groups_.add(set, groups_.groups()[g].units[ranked_[g][static_cast<size_t>(rank)]]);
    }
  }
  return set;
}

void throw_unreachable(const CostMeter& meter, double least) {
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("the budget of {:.6g} {} cannot be reached: with all channels gone that may go, "
                  "{:.6g} are left, {:.4f} of what there was",
                  meter.budget, meter.unit, least, least / meter.full),
      "budget", "ask for that much, or let more channels go");
}

ChannelSet choose_channels(const ChannelOrder& order, const CostMeter& meter) {
  // The cost falls with the count: a bisection finds where it first is low enough.
  size_t low = 0, high = order.size();
  ChannelSet best = order.first(high);
  const double least = meter.cost(best);
  if (least > meter.target) throw_unreachable(meter, least);
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    ChannelSet set = order.first(middle);
    if (meter.cost(set) <= meter.target) {
      high = middle;
      best = std::move(set);
    } else {
      low = middle + 1;
    }
  }
  return best;
}

}  // namespace compress
