// From labels to units and groups.

#include "compress/graph/channels_grouping.h"

#include "compress/graph/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace compress {

ChannelGrouping::ChannelGrouping(const Model& model, PropagatedChannels channels)
    : model_(model), channels_(std::move(channels)) {}

ChannelGroups ChannelGrouping::run() {
  result_.version_ = model_.graph().version();
  number_classes();
  list_products();
  list_places();
  list_frozen();
  find_units();
  return std::move(result_);
}

ChannelClass ChannelGrouping::class_of(Label label) {
  const Label root = channels_.labels.root(label);
  if (root == ChannelLabels::kStays) return 0;
  ChannelClass& number = class_of_root_[root];
  if (number == 0) {
    number = static_cast<ChannelClass>(root_of_class_.size());
    root_of_class_.push_back(root);
  }
  return number;
}

int32_t ChannelGrouping::add_array(const Labels& labels) {
  const auto [found, is_new] =
      array_of_.try_emplace(labels.get(), static_cast<int32_t>(result_.arrays_.size()));
  if (is_new) {
    std::vector<ChannelClass> classes;
    classes.reserve(labels->size());
    for (const Label label : *labels) classes.push_back(class_of(label));
    result_.arrays_.push_back(std::move(classes));
    result_.named_.emplace_back(nullptr, 0);
  }
  return found->second;
}

// In the order of the graph, so that groups come in the order of the layers.
void ChannelGrouping::number_classes() {
  class_of_root_.resize(channels_.labels.size(), 0);
  root_of_class_.push_back(ChannelLabels::kStays);
  const auto add = [&](const Value* value) {
    const auto found = channels_.values.find(value);
    if (found == channels_.values.end()) return;
    std::vector<int32_t>& dims = result_.dims_[value];
    for (const Labels& labels : found->second.labels) {
      dims.push_back(add_array(labels));
      if (!value->is_named_tensor() || channels_.labels.is_fixed(labels)) continue;
      result_.named_[dims.back()] = {value, static_cast<int64_t>(dims.size()) - 1};
    }
  };
  for (const Value* value : model_.graph().named_tensors()) add(value);
  for (const Value* value : model_.graph().inputs()) add(value);
  for (const Node& node : model_.graph().nodes()) {
    for (const Value* output : node.outputs()) add(output);
  }
}

void ChannelGrouping::list_products() {
  for (const ProductRelation& relation : channels_.labels.relations()) {
    ChannelGroups::Product product;
    for (const Label label : *relation.flat) product.flat.push_back(class_of(label));
    for (const Labels& factor : relation.factors) {
      std::vector<ChannelClass>& classes = product.factors.emplace_back();
      for (const Label label : *factor) classes.push_back(class_of(label));
    }
    result_.products_.push_back(std::move(product));
  }
  as_factor_.resize(root_of_class_.size());
  as_flat_.resize(root_of_class_.size());
  for (size_t p = 0; p < result_.products_.size(); ++p) {
    const ChannelGroups::Product& product = result_.products_[p];
    const auto number = static_cast<int32_t>(p);
    for (size_t e = 0; e < product.factors.size(); ++e) {
      for (size_t k = 0; k < product.factors[e].size(); ++k) {
        as_factor_[product.factors[e][k]].push_back(
            {number, static_cast<int32_t>(e), static_cast<int32_t>(k)});
      }
    }
    for (size_t j = 0; j < product.flat.size(); ++j) {
      size_t rest = j, live = 0;
      for (size_t e = product.factors.size(); e-- > 0;) {
        live += product.factors[e][rest % product.factors[e].size()] != 0;
        rest /= product.factors[e].size();
      }
      if (live > 1) as_flat_[product.flat[j]].push_back({number, 0, static_cast<int32_t>(j)});
    }
  }
}

void ChannelGrouping::list_places() {
  std::vector<size_t>& first = result_.first_place_;
  first.assign(root_of_class_.size() + 1, 0);
  for (const auto& array : result_.arrays_) {
    for (const ChannelClass channel : array) {
      if (channel != 0) ++first[channel + 1];
    }
  }
  for (size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
  result_.places_.resize(first.back());
  std::vector<size_t> next(first.begin(), first.end() - 1);
  for (size_t a = 0; a < result_.arrays_.size(); ++a) {
    const std::vector<ChannelClass>& array = result_.arrays_[a];
    for (size_t i = 0; i < array.size(); ++i) {
      if (array[i] == 0) continue;
      result_.places_[next[array[i]]++] = {static_cast<int32_t>(a), static_cast<int32_t>(i)};
    }
  }
}

std::string ChannelGrouping::text(const ChannelReason& reason) const {
  if (reason.node == nullptr) return reason.text;
  const std::string op = base_name(reason.node->op());
  return reason.node->module_path.empty()
             ? fmt::format("{} at `{}`", reason.text, reason.node->output()->name())
             : fmt::format("{} by {} of `{}`", reason.text, op, reason.node->module_path);
}

void ChannelGrouping::list_frozen() {
  for (const Value* value : model_.graph().named_tensors()) {
    const TensorChannels& channels = channels_.values.at(value);
    for (int64_t d = 0; d < channels.rank(); ++d) {
      if (channels_.labels.is_fixed(channels.labels[d])) continue;
      FrozenChannels frozen{value, d, 0, {}};
      for (const Label label : *channels.labels[d]) {
        const ChannelReason* why = channels_.labels.why_frozen(label);
        if (why == nullptr || why->text == kKernelSide) continue;
        if (frozen.count++ == 0) frozen.why = text(*why);
      }
      if (frozen.count > 0) result_.frozen_.push_back(std::move(frozen));
    }
  }
}

template <class Visit>
void ChannelGrouping::each_flat(const Occurrence& at, Visit&& visit) const {
  const ChannelGroups::Product& product = result_.products_[at.product];
  size_t inner = 1;
  for (size_t e = at.factor + 1; e < product.factors.size(); ++e) {
    inner *= product.factors[e].size();
  }
  const size_t block = inner * product.factors[at.factor].size();
  for (size_t outer = 0; outer < product.flat.size(); outer += block) {
    for (size_t i = 0; i < inner; ++i) {
      visit(product.flat[outer + static_cast<size_t>(at.index) * inner + i]);
    }
  }
}

// Adds a class to the closure of `taken.front()`; false if it can never go.
bool ChannelGrouping::take(ChannelClass channel, std::vector<ChannelClass>& taken) {
  if (channel == 0) return false;
  const ChannelClass seed = taken.empty() ? channel : taken.front();
  if (taken_for_[channel] == seed) return true;
  taken_for_[channel] = seed;
  taken.push_back(channel);
  return true;
}

// A product's index goes only with a factor: the one that takes the fewest others along.
bool ChannelGrouping::force_a_factor(ChannelClass channel, std::vector<ChannelClass>& taken) {
  const ChannelClass seed = taken.front();
  for (const Occurrence& at : as_flat_[channel]) {
    const ChannelGroups::Product& product = result_.products_[at.product];
    ChannelClass best = 0;
    size_t fewest = SIZE_MAX, rest = static_cast<size_t>(at.index);
    bool has_factor = false;
    for (size_t e = product.factors.size(); e-- > 0;) {
      const auto index = static_cast<int32_t>(rest % product.factors[e].size());
      rest /= product.factors[e].size();
      const ChannelClass factor = product.factors[e][index];
      if (factor == 0) continue;
      has_factor = has_factor || taken_for_[factor] == seed;
      size_t added = 0;
      each_flat({at.product, static_cast<int32_t>(e), index},
                [&](ChannelClass flat) { added += flat == 0 || taken_for_[flat] != seed; });
      if (added >= fewest) continue;
      fewest = added;
      best = factor;
    }
    if (!has_factor && !take(best, taken)) return false;
  }
  return true;
}

std::optional<std::vector<ChannelClass>> ChannelGrouping::closure(ChannelClass seed) {
  std::vector<ChannelClass> taken;
  take(seed, taken);
  size_t spread = 0, checked = 0;
  while (checked < taken.size()) {
    for (; spread < taken.size(); ++spread) {
      for (const Occurrence& at : as_factor_[taken[spread]]) {
        bool all = true;
        each_flat(at, [&](ChannelClass flat) { all = all && take(flat, taken); });
        if (!all) return std::nullopt;
      }
    }
    if (!force_a_factor(taken[checked++], taken)) return std::nullopt;
  }
  std::sort(taken.begin(), taken.end());
  return taken;
}

// How many indices of each array go with the classes.
ChannelGrouping::Counts ChannelGrouping::count(const std::vector<ChannelClass>& classes) {
  std::vector<int32_t> touched;
  for (const ChannelClass channel : classes) {
    for (size_t i = result_.first_place_[channel]; i < result_.first_place_[channel + 1]; ++i) {
      const int32_t array = result_.places_[i].array;
      if (gone_of_array_[array]++ == 0) touched.push_back(array);
    }
  }
  std::sort(touched.begin(), touched.end());
  Counts counts;
  counts.reserve(touched.size());
  for (const int32_t array : touched) {
    counts.emplace_back(array, gone_of_array_[array]);
    gone_of_array_[array] = 0;
  }
  return counts;
}

// Whether both are all of their units, and in the same arrays.
bool ChannelGrouping::lie_alike(ChannelClass a, ChannelClass b) const {
  if (!as_factor_[a].empty() || !as_factor_[b].empty()) return false;
  const auto at = [&](ChannelClass channel) {
    return result_.places_.begin() + static_cast<std::ptrdiff_t>(result_.first_place_[channel]);
  };
  return std::equal(at(a), at(a + 1), at(b), at(b + 1),
                    [](const auto& x, const auto& y) { return x.array == y.array; });
}

// The dimensions that a unit with these counts cuts, and the parameters that it takes.
ChannelGroup ChannelGrouping::describe(const Counts& counts) const {
  ChannelGroup group;
  std::map<const Value*, std::pair<double, double>> elements;  // before, after
  for (const auto& [array, count] : counts) {
    const auto& [value, dim] = result_.named_[array];
    group.dims.push_back({value, dim, count});
    const NamedTensor* tensor = model_.find_tensor(value->name());
    if (tensor == nullptr || tensor->role != TensorRole::kParameter) continue;
    auto& [before, after] = elements[value];
    if (before == 0) {
      before = 1;
      for (const int64_t size : channels_.sizes.at(value)) before *= static_cast<double>(size);
      after = before;
    }
    const auto size = static_cast<double>(result_.arrays_[array].size());
    after *= (size - static_cast<double>(count)) / size;
  }
  double saved = 0;
  for (const auto& [value, count] : elements) saved += count.first - count.second;
  group.parameters_each = static_cast<int64_t>(saved + 0.5);
  return group;
}

void ChannelGrouping::find_units() {
  const auto classes = static_cast<ChannelClass>(root_of_class_.size());
  taken_for_.assign(root_of_class_.size(), 0);
  gone_of_array_.assign(result_.arrays_.size(), 0);
  std::map<std::pair<Counts, bool>, size_t> group_of;
  auto last = group_of.end();  // neighbours mostly belong together
  std::set<std::vector<ChannelClass>> seen;
  ChannelClass before = 0;  // the last unit's, if it has a single class
  for (ChannelClass seed = 1; seed < classes; ++seed) {
    if (!as_flat_[seed].empty()) continue;
    if (before != 0 && lie_alike(before, seed) &&
        (channels_.labels.why_inexact(root_of_class_[seed]) != nullptr) == last->first.second) {
      result_.groups_[last->second].units.push_back({{seed}});
      continue;
    }
    before = 0;
    std::optional<std::vector<ChannelClass>> found = closure(seed);
    if (!found || (found->size() > 1 && !seen.insert(*found).second)) continue;
    Counts counts = count(*found);
    const bool empties = std::any_of(counts.begin(), counts.end(), [&](const auto& entry) {
      return entry.second >= static_cast<int64_t>(result_.arrays_[entry.first].size());
    });
    std::erase_if(counts,
                  [&](const auto& entry) { return result_.named_[entry.first].first == nullptr; });
    if (empties || counts.empty()) continue;
    const ChannelReason* inexact = nullptr;
    for (const ChannelClass channel : *found) {
      if (inexact == nullptr) inexact = channels_.labels.why_inexact(root_of_class_[channel]);
    }
    const bool is_inexact = inexact != nullptr;
    if (last == group_of.end() || last->first.first != counts || last->first.second != is_inexact) {
      bool is_new = false;
      std::tie(last, is_new) = group_of.try_emplace({counts, is_inexact}, result_.groups_.size());
      if (is_new) {
        result_.groups_.push_back(describe(counts));
        if (is_inexact) result_.groups_.back().why_inexact = text(*inexact);
      }
    }
    if (found->size() == 1) before = seed;
    result_.groups_[last->second].units.push_back({std::move(*found)});
  }
}

ChannelGroups analyse(const Model& model) {
  return ChannelGrouping(model, propagate_channels(model)).run();
}

}  // namespace compress
