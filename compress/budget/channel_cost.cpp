// What a model costs once channels have gone, without removing them.

#include "compress/budget/channel_cost.h"

#include "compress/budget/latency.h"
#include "compress/budget/macs.h"
#include "compress/engine/plan.h"
#include "compress/error.h"
#include "compress/graph/shapes.h"

#include <c10/core/ScalarType.h>

#include <vector>

namespace compress {

ChannelCost operator-(const ChannelCost& a, const ChannelCost& b) {
  ChannelCost difference{a.parameters - b.parameters, a.bytes - b.bytes, std::nullopt};
  if (a.macs && b.macs) difference.macs = *a.macs - *b.macs;
  return difference;
}

namespace {

// Of the tensor of rows that a slice in steps becomes when channels between its rows go.
int64_t index_bytes(const ChannelGroups& groups, const ChannelSet& set, const Node& node) {
  const Value* input = node.arguments()[0].value();
  const auto* step = std::get_if<int64_t>(&node.argument("step").data());
  const auto* dim = std::get_if<int64_t>(&node.argument("dim").data());
  if (input == nullptr || step == nullptr || *step == 1 || dim == nullptr) return 0;
  const int64_t along = *dim < 0 ? *dim + groups.rank(input) : *dim;
  if (along < 0 || along >= groups.rank(input)) return 0;
  const auto& classes = groups.classes(input, along);
  if (groups.left(set, input, along) == static_cast<int64_t>(classes.size())) return 0;
  return groups.left(set, node.output(), along) * static_cast<int64_t>(sizeof(int64_t));
}

}  // namespace

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
  for (const Node& node : model.graph().nodes()) {
    if (node.op() == "aten::slice.Tensor") cost.bytes += index_bytes(groups, set, node);
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

double limited_by(Budget::Kind kind, const ChannelCost& cost) {
  COMPRESS_CHECK(!Budget{kind}.is_latency(), "a latency is measured, not counted");
  if (kind == Budget::Kind::kParameters) return static_cast<double>(cost.parameters);
  if (kind == Budget::Kind::kBytes) return static_cast<double>(cost.bytes);
  if (cost.macs) return *cost.macs;
  throw Error(ErrorCode::kUnsupported, "the multiply-accumulates of this model are not known",
              "budget", "set a budget of parameters or bytes");
}

double limited_by(Budget::Kind kind, const Model& model) {
  LatencyOptions latency;
  latency.seconds = 0.2;
  if (kind == Budget::Kind::kLatency) return measure_latency({&model}, latency)[0].median_ms;
  if (kind == Budget::Kind::kEngineLatency) {
    const std::vector<at::Tensor> inputs = example_inputs(model, latency.batch);
    Plan planned = plan(model, inputs);
    return time_in_turns({[&] { planned.run(inputs); }}, latency)[0].median_ms;
  }
  const ChannelGroups groups = analyse(model);
  return limited_by(kind, cost_without(model, groups, groups.none()));
}

}  // namespace compress
