// Labels of channels: which index of which dimension has to go together with which other.
//
// Every dimension of every tensor has an array with one label an index. Two indices with the same
// label go together; label 0 stays for ever. Whatever an operator demands is said by joining two
// arrays, by freezing one, or by a product relation: an index `j` of `flat` goes exactly if one of
// its factors goes, where `j` counts through the factors' indices in row-major order. Heads of
// attention, flattened images, grouped convolutions and shuffled channels are all such products.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace compress {

class Node;

using Label = int32_t;
/// One label for each index of a dimension. Shared, as most operators hand dimensions through.
using Labels = std::shared_ptr<const std::vector<Label>>;

/// `flat[j]` goes exactly if one of the factors' labels at `j` goes.
struct ProductRelation {
  Labels flat;
  std::vector<Labels> factors;  ///< `flat->size()` is the product of their sizes
};

/// Why a label stays, or why removing it changes what a statistic sees. `node` may be null.
struct ChannelReason {
  const Node* node = nullptr;
  std::string text;
};

class ChannelLabels {
 public:
  static constexpr Label kStays = 0;

  ChannelLabels();

  Labels fresh(int64_t size);
  /// `size` times label 0.
  Labels stays(int64_t size);
  /// Whether the array is one of those that `stays` returns.
  bool is_fixed(const Labels& labels) const;

  void join(const Labels& a, const Labels& b, const Node* node);
  void join(Label a, Label b, const Node* node);
  void freeze(const Labels& labels, const Node* node, const std::string& why);
  void freeze(Label label, const Node* node, const std::string& why);
  /// Says that without these indices other results change too: a norm or a mean runs over them.
  void mark_inexact(const Labels& labels, const Node* node, const std::string& why);

  void relate(Labels flat, std::vector<Labels> factors);
  /// The factors of `flat`, of these sizes.
  std::vector<Labels> split(const Labels& flat, const std::vector<int64_t>& sizes);
  /// The product of the factors.
  Labels merge(const std::vector<Labels>& factors);

  /// Draws all consequences of the relations. Nothing may be added afterwards.
  void solve();

  /// The label that stands for all that were joined with this one; `kStays` if it is frozen.
  Label root(Label label) const;
  /// Why the label stays; null if it does not.
  const ChannelReason* why_frozen(Label label) const;
  /// Why its removal is inexact; null if it is exact.
  const ChannelReason* why_inexact(Label label) const;
  /// Those that were not resolved into joins.
  const std::vector<ProductRelation>& relations() const { return relations_; }
  int64_t size() const { return static_cast<int64_t>(parent_.size()); }

 private:
  Label find(Label label) const;
  int32_t reason(const Node* node, const std::string& text);
  bool is_frozen(Label label) const { return frozen_[find(label)] >= 0; }
  bool unite(Label a, Label b, int32_t when_frozen);
  bool simplify(const ProductRelation& relation);
  bool freeze_what_repeats(const ProductRelation& relation);
  bool join_equal_relations();
  bool is_live(const ProductRelation& relation) const;

  mutable std::vector<Label> parent_;
  std::vector<int32_t> frozen_;   // by root: index of the reason, or -1
  std::vector<int32_t> inexact_;  // likewise
  std::vector<ChannelReason> reasons_;
  std::vector<ProductRelation> relations_;
  std::map<int64_t, Labels> stays_;
  // Splitting what was merged, or the same array twice, gives the same factors.
  std::map<std::pair<Labels, std::vector<int64_t>>, std::vector<Labels>> splits_;
};

}  // namespace compress
