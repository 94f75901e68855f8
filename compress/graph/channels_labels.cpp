// Labels of channels: union-find, and arrays that are split and merged.

#include "compress/graph/channels_labels.h"

#include <algorithm>
#include <numeric>

namespace compress {

ChannelLabels::ChannelLabels() {
  parent_.push_back(kStays);
  frozen_.push_back(reason(nullptr, "is no dimension of channels"));
  inexact_.push_back(-1);
}

int32_t ChannelLabels::reason(const Node* node, const std::string& text) {
  if (reasons_.empty() || reasons_.back().node != node || reasons_.back().text != text) {
    reasons_.push_back({node, text});
  }
  return static_cast<int32_t>(reasons_.size()) - 1;
}

Labels ChannelLabels::fresh(int64_t size) {
  if (size <= 1) return stays(size);  // what is broadcast cannot shrink
  std::vector<Label> labels(size);
  std::iota(labels.begin(), labels.end(), static_cast<Label>(parent_.size()));
  parent_.insert(parent_.end(), labels.begin(), labels.end());
  frozen_.resize(parent_.size(), -1);
  inexact_.resize(parent_.size(), -1);
  return std::make_shared<const std::vector<Label>>(std::move(labels));
}

Labels ChannelLabels::stays(int64_t size) {
  Labels& labels = stays_[size];
  if (labels == nullptr) labels = std::make_shared<const std::vector<Label>>(size, kStays);
  return labels;
}

bool ChannelLabels::is_fixed(const Labels& labels) const {
  const auto found = stays_.find(static_cast<int64_t>(labels->size()));
  return found != stays_.end() && found->second == labels;
}

Label ChannelLabels::find(Label label) const {
  while (parent_[label] != label) {
    parent_[label] = parent_[parent_[label]];
    label = parent_[label];
  }
  return label;
}

// Frozen classes are kept apart where both have a reason of their own: nothing depends on them.
bool ChannelLabels::unite(Label a, Label b, int32_t when_frozen) {
  a = find(a);
  b = find(b);
  if (a == b || (frozen_[a] >= 0 && frozen_[b] >= 0)) return false;
  if (frozen_[b] >= 0) std::swap(a, b);
  if (frozen_[a] >= 0) {
    frozen_[b] = a == kStays ? when_frozen : frozen_[a];
    return true;
  }
  if (b < a) std::swap(a, b);  // the smaller label is the root, whatever the order of joins
  parent_[b] = a;
  if (inexact_[a] < 0) inexact_[a] = inexact_[b];
  return true;
}

void ChannelLabels::join(Label a, Label b, const Node* node) {
  unite(a, b, reason(node, "meets a dimension that is none of channels"));
}

void ChannelLabels::join(const Labels& a, const Labels& b, const Node* node) {
  if (a == b) return;
  const int32_t why = reason(node, "meets a dimension that is none of channels");
  for (size_t i = 0; i < a->size(); ++i) unite((*a)[i], (*b)[i], why);
}

void ChannelLabels::freeze(Label label, const Node* node, const std::string& why) {
  int32_t& frozen = frozen_[find(label)];
  if (frozen < 0) frozen = reason(node, why);
}

void ChannelLabels::freeze(const Labels& labels, const Node* node, const std::string& why) {
  if (is_fixed(labels)) return;
  const int32_t number = reason(node, why);
  for (const Label label : *labels) {
    int32_t& frozen = frozen_[find(label)];
    if (frozen < 0) frozen = number;
  }
}

void ChannelLabels::mark_inexact(const Labels& labels, const Node* node, const std::string& why) {
  if (is_fixed(labels)) return;
  const int32_t number = reason(node, why);
  for (const Label label : *labels) {
    int32_t& inexact = inexact_[find(label)];
    if (inexact < 0) inexact = number;
  }
}

void ChannelLabels::relate(Labels flat, std::vector<Labels> factors) {
  std::erase_if(factors, [](const Labels& factor) { return factor->size() == 1; });
  relations_.push_back({std::move(flat), std::move(factors)});
}

std::vector<Labels> ChannelLabels::split(const Labels& flat, const std::vector<int64_t>& sizes) {
  if (sizes.size() == 1) return {flat};
  const auto [found, is_new] = splits_.try_emplace({flat, sizes});
  std::vector<Labels>& factors = found->second;
  if (!is_new) return factors;
  const bool fixed = is_fixed(flat);
  for (const int64_t size : sizes) factors.push_back(fixed ? stays(size) : fresh(size));
  if (!fixed) relate(flat, factors);
  return factors;
}

Labels ChannelLabels::merge(const std::vector<Labels>& factors) {
  if (factors.size() == 1) return factors.front();
  int64_t size = 1;
  std::vector<int64_t> sizes;
  for (const Labels& factor : factors) {
    sizes.push_back(static_cast<int64_t>(factor->size()));
    size *= sizes.back();
  }
  const auto is_live = [&](const Labels& factor) { return !is_fixed(factor); };
  const auto live = std::count_if(factors.begin(), factors.end(), is_live);
  if (live == 0) return stays(size);
  Labels flat;
  if (live == 1) {
    const auto factor = std::find_if(factors.begin(), factors.end(), is_live);
    int64_t inner = 1;
    for (auto it = std::next(factor); it != factors.end(); ++it) {
      inner *= static_cast<int64_t>((*it)->size());
    }
    std::vector<Label> labels(size);
    const auto period = static_cast<int64_t>((*factor)->size());
    for (int64_t j = 0; j < size; ++j) labels[j] = (**factor)[j / inner % period];
    flat = std::make_shared<const std::vector<Label>>(std::move(labels));
  } else {
    for (const auto& [key, known] : splits_) {
      if (key.second == sizes && known == factors) return key.first;
    }
    flat = fresh(size);
    relate(flat, factors);
  }
  splits_[{flat, sizes}] = factors;
  return flat;
}

Label ChannelLabels::root(Label label) const {
  const Label top = find(label);
  return frozen_[top] >= 0 ? kStays : top;
}

const ChannelReason* ChannelLabels::why_frozen(Label label) const {
  const int32_t number = frozen_[find(label)];
  return number < 0 ? nullptr : &reasons_[number];
}

const ChannelReason* ChannelLabels::why_inexact(Label label) const {
  const int32_t number = inexact_[find(label)];
  return number < 0 ? nullptr : &reasons_[number];
}

}  // namespace compress
