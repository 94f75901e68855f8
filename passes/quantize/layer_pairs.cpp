// Pairs of layers between which a channel can be scaled and scaled back.

#include "passes/quantize/layer_pairs.h"

#include "compress/graph/schema.h"
#include "passes/batch_norm_node.h"
#include "passes/layer_bias.h"
#include "passes/quantize/activation_sites.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

namespace compress {
namespace {

bool is_relu(const Node& node) { return node.op() == "aten::relu"; }

// Whether f(s x) = s f(x) for each channel and s > 0, whatever the dimension of channels.
bool is_homogeneous(const Node& node) {
  if (node.op() == "aten::dropout") return node.argument("train") == Argument(false);
  return is_one_of(base_op(node),
                   {"aten::relu", "aten::leaky_relu", "aten::contiguous", "aten::clone"});
}

// The same for outputs of a convolution only.
bool is_pooling(const Node& node) {
  return is_one_of(base_op(node), {"aten::max_pool1d", "aten::max_pool2d", "aten::avg_pool1d",
                                   "aten::avg_pool2d", "aten::adaptive_avg_pool1d",
                                   "aten::adaptive_avg_pool2d", "aten::adaptive_max_pool2d"});
}

// Whether all dimensions behind the channels become one with them, or vanish.
bool collapses_positions(const Node& node, size_t dims) {
  if (node.op() == "aten::flatten.using_ints") {
    const Argument &start = node.argument("start_dim"), &end = node.argument("end_dim");
    return start == Argument(1) &&
           (end == Argument(-1) || end == Argument(static_cast<int64_t>(dims) - 1));
  }
  if (node.op() != "aten::mean.dim" || !node.argument("dim").is_list()) return false;
  std::vector<int64_t> reduced = node.argument("dim").ints(), positions;
  for (int64_t& dim : reduced) dim += dim < 0 ? static_cast<int64_t>(dims) : 0;
  for (size_t dim = 2; dim < dims; ++dim) positions.push_back(static_cast<int64_t>(dim));
  std::sort(reduced.begin(), reduced.end());
  return reduced == positions && node.argument("keepdim") == Argument(false);
}

class PairFinder {
 public:
  PairFinder(Model& model, std::vector<Weight>& weights, std::vector<std::string>* obstacles)
      : model_(model), uses_(model.graph()), obstacles_(obstacles) {
    for (Weight& weight : weights) {
      if (can_scale(weight)) by_node_.emplace(weight.layer(), &weight);
    }
  }

  std::vector<LayerPair> find() {
    std::vector<LayerPair> pairs;
    for (Node& node : model_.graph().nodes()) {
      const auto weight = by_node_.find(&node);
      if (weight == by_node_.end()) continue;
      LayerPair pair;
      pair.first = {weight->second, &node, norm_behind(node)};
      if (walk_on(pair)) pairs.push_back(pair);
    }
    return pairs;
  }

 private:
  bool can_scale(const Weight& weight) const {
    if (weight.uses().size() != 1 || weight.layer() == nullptr || weight.stored() == nullptr) {
      return false;
    }
    const Node& layer = *weight.layer();
    const Value* stored = model_.graph().find(weight.stored()->name);
    return activation_of(weight.uses()[0]) != nullptr && bias_obstacle(model_, layer).empty() &&
           !layer.op().starts_with("aten::conv_transpose") &&
           !(layer.has_argument("transposed") && layer.argument("transposed") == Argument(true)) &&
           has_channels_where_expected(weight) && uses_.of(stored).size() == 1;
  }

  // The second matrix of an addmm; a convolution of batches.
  static bool has_channels_where_expected(const Weight& weight) {
    const Node& layer = *weight.layer();
    if (layer.op() == "aten::addmm") return weight.uses()[0].argument == 2;
    const auto& sizes = layer.output()->type.sizes;
    return weight.kind() != OperatorKind::kConv || !sizes || sizes->size() == weight.sizes().size();
  }

  const Use* only_use(const Value* value) const {
    const std::vector<Use>& uses = uses_.of(value);
    return uses.size() == 1 && uses[0].node != nullptr ? uses.data() : nullptr;
  }

  bool is_owned(const Node& norm, std::string_view argument) const {
    return norm_tensor(model_, norm, argument).defined() &&
           uses_.of(norm_value(norm, argument)).size() == 1;
  }

  Node* norm_behind(const Node& layer) const {
    const Use* use = only_use(layer.output());
    if (use == nullptr || use->index != 0 || !is_batch_norm(*use->node)) return nullptr;
    // It acts on dimension 1, which is not the channels' where a linear layer sees sequences.
    const auto& sizes = layer.output()->type.sizes;
    if (operator_kind(layer) == OperatorKind::kLinear && (!sizes || sizes->size() != 2)) {
      return nullptr;
    }
    const Node& norm = *use->node;
    const bool plain = !is_training(norm) && is_owned(norm, "weight") && is_owned(norm, "bias") &&
                       is_owned(norm, "running_mean") && is_owned(norm, "running_var");
    return plain ? use->node : nullptr;
  }

  // From the first layer to the second.
  bool walk_on(LayerPair& pair) {
    const Weight& first = *pair.first.weight;
    const bool conv = first.kind() == OperatorKind::kConv;
    bool collapsed = false;
    const Node* node = pair.first.norm != nullptr ? pair.first.norm : pair.first.node;
    while (const Use* use = only_use(node->output())) {
      node = use->node;
      if (by_node_.count(node) > 0) return join(pair, node, use->index, conv && !collapsed);
      pair.has_relu |= is_relu(*node);
      if (use->index == 0 && is_homogeneous(*node)) continue;
      if (conv && !collapsed && is_pooling(*node)) continue;
      if (conv && !collapsed && collapses_positions(*node, first.sizes().size())) {
        collapsed = true;
        continue;
      }
      return note(pair, *node);
    }
    return false;
  }

  bool join(LayerPair& pair, const Node* node, size_t argument, bool has_positions) {
    Weight* weight = by_node_.at(node);
    size_t activation = 0;
    activation_of(weight->uses()[0], &activation);
    const bool conv = weight->kind() == OperatorKind::kConv;
    if (argument != activation || conv != has_positions) return false;
    pair.second = {weight, weight->layer(), norm_behind(*node)};
    pair.channels = pair.first.weight->sizes()[pair.first.weight->output_dim()];
    const int64_t inputs = weight->sizes()[weight->input_dim()] * weight->groups();
    return conv ? inputs == pair.channels : inputs % pair.channels == 0;
  }

  // Says what stands in the way if another layer could have followed.
  bool note(const LayerPair& pair, const Node& obstacle) const {
    if (obstacles_ == nullptr || obstacle.outputs().empty()) return false;
    const Use* use = only_use(obstacle.output());
    if (use != nullptr && by_node_.count(use->node) > 0) {
      obstacles_->push_back(
          fmt::format("{}: left alone, {} behind it does not commute with scaling",
                      pair.first.weight->name(), obstacle.op()));
    }
    return false;
  }

  Model& model_;
  UseMap uses_;
  std::vector<std::string>* obstacles_;
  std::unordered_map<const Node*, Weight*> by_node_;
};

}  // namespace

std::vector<LayerPair> layer_pairs(Model& model, std::vector<Weight>& weights,
                                   std::vector<std::string>* obstacles) {
  return PairFinder(model, weights, obstacles).find();
}

}  // namespace compress
