// Coupled channels: which indices of which tensors can only go together.
//
// Removing an output channel of a convolution takes a row of its weight, elements of the batch norm
// behind it, and a column of every layer that reads it; where a residual joins two layers it takes
// a channel of each, and in attention whole heads go, or the same offset of every head. All this
// follows from the operators alone. `analyse` finds the smallest sets of indices that go together;
// compress/graph/compact.h removes them.
//
// Cf. Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, whose groups are the same
// where there are no products of dimensions.

#pragma once

#include "compress/model.h"

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace compress {

/// Stands for all indices that are joined; 0 never goes.
using ChannelClass = int32_t;

/// Indices of a dimension of a named tensor.
struct ChannelCut {
  const Value* tensor = nullptr;
  int64_t dim = 0;
  std::vector<int64_t> indices;
};

/// The smallest set of channels that can go: one output channel, one head of attention.
struct ChannelUnit {
  std::vector<ChannelClass> classes;  ///< ascending; closed under what the operators demand
};

/// A dimension of a named tensor and how many of its indices one unit takes.
struct ChannelDim {
  const Value* tensor = nullptr;
  int64_t dim = 0;
  int64_t indices_each = 1;
};

/// Units that cut the same dimensions of the same tensors by the same number of indices.
struct ChannelGroup {
  std::vector<ChannelDim> dims;
  std::vector<ChannelUnit> units;
  int64_t parameters_each = 0;  ///< elements of parameters that the first unit takes
  /// Empty if zeroing the parameters of a unit gives what removing it gives; else what differs
  /// ("`layer_norm` takes statistics over channels").
  std::string why_inexact;

  bool exact() const { return why_inexact.empty(); }
};

/// Indices of a named tensor's dimension that can never go, and why.
struct FrozenChannels {
  const Value* tensor = nullptr;
  int64_t dim = 0;
  int64_t count = 0;  ///< how many of its indices
  std::string why;
};

/// Channels chosen to go. A value that belongs to the analysis which made it.
struct ChannelSet {
  std::vector<bool> gone;     ///< by class
  std::vector<int64_t> left;  ///< by array: indices that stay
  bool empty() const;
};

class ChannelGroups {
 public:
  const std::vector<ChannelGroup>& groups() const& { return groups_; }
  std::vector<ChannelGroup> groups() && { return std::move(groups_); }
  /// Dimensions that could be channels but are not free; kernels and sizes of 1 are left out.
  const std::vector<FrozenChannels>& frozen() const& { return frozen_; }
  std::vector<FrozenChannels> frozen() && { return std::move(frozen_); }

  ChannelSet none() const;
  /// Adds a unit. Returns false, with nothing changed, if some dimension of some value would be
  /// left without any index.
  bool add(ChannelSet& set, const ChannelUnit& unit) const;
  /// The same for any set of classes; throws Error(kInvalidArgument) unless the union is closed.
  bool add(ChannelSet& set, const std::vector<ChannelClass>& classes) const;

  /// What a unit takes from the named tensors.
  std::vector<ChannelCut> cuts(const ChannelUnit& unit) const;

  /// The classes of a dimension's indices.
  const std::vector<ChannelClass>& classes(const Value* value, int64_t dim) const;
  int64_t rank(const Value* value) const;
  /// How many indices of a dimension stay.
  int64_t left(const ChannelSet& set, const Value* value, int64_t dim) const;
  bool is_cut(const ChannelSet& set, const Value* value, int64_t dim) const;
  bool is_cut(const ChannelSet& set, const Value* value) const;
  /// The indices that stay, ascending.
  std::vector<int64_t> kept(const ChannelSet& set, const Value* value, int64_t dim) const;

  /// Of the graph that was analysed.
  uint64_t version() const { return version_; }

 private:
  friend class ChannelGrouping;
  struct Place {
    int32_t array, index;
  };
  struct Product {  // flat[j] goes exactly if a factor goes
    std::vector<ChannelClass> flat;
    std::vector<std::vector<ChannelClass>> factors;
  };
  int32_t array_of(const Value* value, int64_t dim) const;
  bool is_closed(const std::vector<bool>& gone) const;

  std::vector<std::vector<ChannelClass>> arrays_;
  std::unordered_map<const Value*, std::vector<int32_t>> dims_;  // indices of arrays
  std::vector<std::pair<const Value*, int64_t>> named_;          // by array; null of results
  std::vector<size_t> first_place_;                              // by class, into places_
  std::vector<Place> places_;
  std::vector<Product> products_;
  std::vector<ChannelGroup> groups_;
  std::vector<FrozenChannels> frozen_;
  uint64_t version_ = 0;
};

/// Finds the coupled channels. Needs neither data nor gradients, and reads no weight. Operators
/// that have no rule freeze what they touch. Throws what running the model throws where its sizes
/// are not known.
ChannelGroups analyse(const Model& model);

/// `conv1.weight[0], bn1.weight[0], conv2.weight[1]: 16 units, ...`, one line.
std::string print(const ChannelGroup& group);

}  // namespace compress
