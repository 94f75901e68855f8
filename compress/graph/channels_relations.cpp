// What follows from product relations: most of them turn out to be plain joins.

#include "compress/graph/channels_labels.h"

#include <algorithm>
#include <cstdint>
#include <unordered_map>

namespace compress {
namespace {

constexpr const char* kWhole = "is a part of what stays";
constexpr const char* kNothingLeft = "cannot lose one index without losing all";

// Counts through the factors of a relation in row-major order.
class Position {
 public:
  explicit Position(const ProductRelation& relation) : relation_(relation) {
    index_.resize(relation.factors.size());
  }
  Label factor(size_t i) const { return (*relation_.factors[i])[index_[i]]; }
  void next() {
    for (size_t i = index_.size(); i-- > 0;) {
      if (++index_[i] < relation_.factors[i]->size()) return;
      index_[i] = 0;
    }
  }

 private:
  const ProductRelation& relation_;
  std::vector<size_t> index_;
};

uint64_t mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15 + (hash << 6) + (hash >> 2);  // Boost's hash_combine
  return hash;
}

}  // namespace

// flat frozen: all its factors are; all factors frozen: flat is; one factor left: it is flat.
bool ChannelLabels::simplify(const ProductRelation& relation) {
  bool changed = false;
  Position position(relation);
  for (const Label flat : *relation.flat) {
    if (is_frozen(flat)) {
      const int32_t why = frozen_[find(flat)];
      for (size_t i = 0; i < relation.factors.size(); ++i) {
        int32_t& frozen = frozen_[find(position.factor(i))];
        changed |= frozen < 0;
        if (frozen < 0) frozen = why;
      }
    } else {
      Label live = kStays;
      size_t count = 0;
      for (size_t i = 0; i < relation.factors.size(); ++i) {
        if (is_frozen(position.factor(i))) continue;
        live = position.factor(i);
        ++count;
      }
      if (count == 0 && !relation.factors.empty()) {
        const int32_t why = frozen_[find(position.factor(0))];
        frozen_[find(flat)] = why == frozen_[kStays] ? reason(nullptr, kWhole) : why;
        changed = true;
      } else if (count == 1) {
        changed |= unite(flat, live, 0);
      }
    }
    position.next();
  }
  return changed;
}

// Where flat's labels do not depend on a factor, losing one index of it loses them all.
bool ChannelLabels::freeze_what_repeats(const ProductRelation& relation) {
  const std::vector<Label>& flat = *relation.flat;
  bool changed = false;
  size_t inner = flat.size();
  for (const Labels& factor : relation.factors) {
    const size_t period = factor->size();
    inner /= period;
    if (is_fixed(factor)) continue;
    bool repeats = true;
    for (size_t j = 0; repeats && j < flat.size(); ++j) {
      const size_t first = j - (j / inner % period) * inner;
      repeats = find(flat[j]) == find(flat[first]);
    }
    if (!repeats) continue;
    for (const Label label : *factor) {
      if (is_frozen(label)) continue;
      freeze(label, nullptr, kNothingLeft);
      changed = true;
    }
  }
  return changed;
}

// Equal factors make equal products. The reverse holds too, since a product of which something is
// left tells which of its factors' indices are left.
bool ChannelLabels::join_equal_relations() {
  const auto same = [&](const Labels& a, const Labels& b) {
    return std::equal(a->begin(), a->end(), b->begin(), b->end(),
                      [&](Label x, Label y) { return find(x) == find(y); });
  };
  const auto hash_of = [&](uint64_t hash, const Labels& labels) {
    for (const Label label : *labels) hash = mix(hash, find(label));
    return hash;
  };
  std::unordered_multimap<uint64_t, const ProductRelation*> by_flat, by_factors;
  bool changed = false;
  const auto join_all = [&](const Labels& a, const Labels& b) {
    for (size_t i = 0; i < a->size(); ++i) changed |= unite((*a)[i], (*b)[i], 0);
  };
  for (const ProductRelation& relation : relations_) {
    uint64_t sizes = relation.factors.size();
    for (const Labels& factor : relation.factors) sizes = mix(sizes, factor->size());
    uint64_t factors = sizes;
    for (const Labels& factor : relation.factors) factors = hash_of(factors, factor);
    const auto alike = [&](const ProductRelation& other) {
      return std::equal(relation.factors.begin(), relation.factors.end(), other.factors.begin(),
                        other.factors.end(),
                        [](const Labels& a, const Labels& b) { return a->size() == b->size(); });
    };
    const auto [first, last] = by_factors.equal_range(factors);
    const auto twin = std::find_if(first, last, [&](const auto& entry) {
      return alike(*entry.second) && std::equal(relation.factors.begin(), relation.factors.end(),
                                                entry.second->factors.begin(), same);
    });
    if (twin != last) join_all(relation.flat, twin->second->flat);
    by_factors.emplace(factors, &relation);
    const uint64_t flat = hash_of(sizes, relation.flat);
    const auto [begin, end] = by_flat.equal_range(flat);
    const auto other = std::find_if(begin, end, [&](const auto& entry) {
      return alike(*entry.second) && same(relation.flat, entry.second->flat);
    });
    if (other != end) {
      for (size_t i = 0; i < relation.factors.size(); ++i) {
        join_all(relation.factors[i], other->second->factors[i]);
      }
    }
    by_flat.emplace(flat, &relation);
  }
  return changed;
}

bool ChannelLabels::is_live(const ProductRelation& relation) const {
  Position position(relation);
  for (size_t j = 0; j < relation.flat->size(); ++j) {
    size_t live = 0;
    for (size_t i = 0; i < relation.factors.size(); ++i) live += !is_frozen(position.factor(i));
    if (live > 1) return true;
    position.next();
  }
  return false;
}

void ChannelLabels::solve() {
  splits_.clear();
  for (bool changed = true; changed;) {
    changed = false;
    for (const ProductRelation& relation : relations_) {
      changed |= freeze_what_repeats(relation);
      changed |= simplify(relation);
    }
    if (changed) continue;
    std::erase_if(relations_, [&](const ProductRelation& relation) { return !is_live(relation); });
    changed = join_equal_relations();
  }
}

}  // namespace compress
