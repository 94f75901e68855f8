// What a model costs once channels have gone, without removing them.

#include "compress/budget/channel_cost.h"

#include "compress/budget/macs.h"

#include <c10/core/ScalarType.h>

#include <vector>

namespace compress {

ChannelCost operator-(const ChannelCost& a, const ChannelCost& b) {
  ChannelCost difference{a.parameters - b.parameters, a.bytes - b.bytes, std::nullopt};
  if (a.macs && b.macs) difference.macs = *a.macs - *b.macs;
  return difference;
}

ChannelCost cost_without(const Model& model, const ChannelGroups& groups, const ChannelSet& set) {
  const SizesOf sizes_of = [&](const Value* value) -> std::optional<std::vector<int64_t>> {
    std::vector<int64_t> sizes;
    for (int64_t d = 0; d < groups.rank(value); ++d) sizes.push_back(groups.left(set, value, d));
    return sizes;
  };
  ChannelCost cost;
  for (const Value* value : model.graph().named_tensors()) {
    const NamedTensor* tensor = model.find_tensor(value->name());
    if (tensor == nullptr) continue;
    int64_t elements = 1;
    for (int64_t d = 0; d < groups.rank(value); ++d) elements *= groups.left(set, value, d);
    if (tensor->role == TensorRole::kParameter) cost.parameters += elements;
    const auto dtype = value->type.dtype;
    if (tensor->tensor.defined()) {
      cost.bytes += elements * static_cast<int64_t>(tensor->tensor.element_size());
    } else if (dtype) {
      cost.bytes += elements * static_cast<int64_t>(c10::elementSize(*dtype));
    }
  }
  double samples = 1;
  for (const Value* input : model.graph().inputs()) {
    if (groups.rank(input) == 0) continue;
    samples = static_cast<double>(groups.left(set, input, 0));
    break;
  }
  cost.macs = 0;
  for (const Node& node : model.graph().nodes()) {
    if (!has_macs(node)) continue;
    const std::optional<double> macs = node_macs(node, sizes_of);
    if (!macs) {
      cost.macs.reset();
      break;
    }
    *cost.macs += *macs / samples;
  }
  return cost;
}

ChannelCost saving_of(const Model& model, const ChannelGroups& groups, const ChannelGroup& group) {
  const ChannelSet none = groups.none();
  ChannelSet one = none;
  groups.add(one, group.units.front());
  return cost_without(model, groups, none) - cost_without(model, groups, one);
}

}  // namespace compress
