// What each kind of operator demands of the channels of its operands and results.

#pragma once

#include "compress/graph/channels_labels.h"
#include "compress/model.h"

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace compress {

/// The dimensions of a tensor.
struct TensorChannels {
  std::vector<Labels> labels;
  /// For each dimension whether the elements at an index that goes are zero, once all parameters
  /// are zeroed there: then a sum over the dimension does not miss them.
  std::vector<bool> zero;

  int64_t rank() const { return static_cast<int64_t>(labels.size()); }
  int64_t size(int64_t dim) const { return static_cast<int64_t>(labels.at(dim)->size()); }
  void add(Labels dimension, bool is_zero) {
    labels.push_back(std::move(dimension));
    zero.push_back(is_zero);
  }
};

/// A dimension counted from the end becomes one counted from the front.
inline int64_t from_front(int64_t dim, int64_t rank) { return dim < 0 ? dim + rank : dim; }

/// Why sides of kernels stay: nobody asks.
inline constexpr const char* kKernelSide = "is a side of a kernel";

/// Thrown inside only: a rule cannot tell, so that all operands and results stay as they are.
struct NoChannelRule {
  std::string why;
};

using ChannelMap = std::unordered_map<const Value*, TensorChannels>;
using SizeMap = std::unordered_map<const Value*, std::vector<int64_t>>;
using ScalarMap = std::unordered_map<const Value*, c10::IValue>;

/// One node with what is known of its operands. Operands that a rule does not ask for are frozen
/// after it: there is nothing that a rule can forget.
class RuleCall {
 public:
  RuleCall(const Model& model, const Node& node, ChannelLabels& labels, ChannelMap& known,
           const SizeMap& sizes, const ScalarMap& scalars)
      : node(node), labels(labels), scalars(scalars), model_(model), known_(known), sizes_(sizes) {}

  const Node& node;
  ChannelLabels& labels;
  const ScalarMap& scalars;  ///< numbers that are computed from sizes

  /// The tensor argument of that name, or null where the node has none.
  const TensorChannels* find(std::string_view name);
  /// The same where there must be one.
  const TensorChannels& operand(std::string_view name);
  const TensorChannels& operand(size_t index);
  /// The tensors of a list argument.
  std::vector<const TensorChannels*> list(std::string_view name);
  /// All tensor arguments, those inside of lists included.
  std::vector<const TensorChannels*> all();
  bool is_tensor(std::string_view name) const;
  /// A number among the arguments; throws NoChannelRule where it is computed or missing.
  int64_t integer(std::string_view name) const;
  bool flag(std::string_view name) const;
  /// Numbers of a list argument, one of a single number; empty for none.
  std::vector<int64_t> integers(std::string_view name) const;

  /// The elements of a named tensor of one dimension; none of what is computed.
  std::optional<std::vector<int64_t>> constant_vector(std::string_view name) const;

  /// The sizes of an output.
  const std::vector<int64_t>& sizes(size_t index = 0) const;
  size_t results() const { return node.outputs().size(); }
  void give(TensorChannels channels, size_t index = 0);

  void join(const Labels& a, const Labels& b);
  void freeze(const Labels& labels, const std::string& why);
  void freeze(const TensorChannels& channels, const std::string& why);
  /// Operands on the right of which the result's dimensions lie, as broadcasting has it. The
  /// operands' labels are joined; `zero` is left false.
  TensorChannels broadcast(const std::vector<const TensorChannels*>& operands,
                           const std::vector<int64_t>& sizes);
  /// Sums products of `a` and `b` over a dimension of each.
  void contract(const TensorChannels& a, int64_t a_dim, const TensorChannels& b, int64_t b_dim);

  /// Freezes the operands that no rule has asked for.
  void finish();

 private:
  const TensorChannels* take(const Value* value);

  const Model& model_;
  ChannelMap& known_;
  const SizeMap& sizes_;
  std::unordered_set<const Value*> taken_;
};

using ChannelRule = void (*)(RuleCall&);
using ChannelRules = std::unordered_map<std::string, ChannelRule>;

void add_elementwise_rules(ChannelRules& rules);
void add_reduction_rules(ChannelRules& rules);
void add_normalisation_rules(ChannelRules& rules);
void add_contraction_rules(ChannelRules& rules);
void add_movement_rules(ChannelRules& rules);
void add_view_rules(ChannelRules& rules);
void add_recurrent_rules(ChannelRules& rules);

/// The rule of an operator, by its full name (`mean.dim`), else by its base name (`relu`); null if
/// there is none.
ChannelRule find_channel_rule(const std::string& op);

}  // namespace compress
