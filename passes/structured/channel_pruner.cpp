// The rounds of channel pruning.

#include "passes/structured/channel_pruner.h"

#include "compress/budget/channel_cost.h"
#include "compress/graph/compact.h"
#include "compress/weight.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <numeric>

namespace compress {
namespace {

std::vector<int64_t> all_indices(int64_t size) {
  std::vector<int64_t> indices(static_cast<size_t>(size));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

void keep(std::vector<int64_t>& indices, const std::vector<int64_t>& of_them) {
  std::vector<int64_t> left;
  for (const int64_t index : of_them) left.push_back(indices.at(static_cast<size_t>(index)));
  indices = std::move(left);
}

}  // namespace

at::Tensor ChannelPruner::Costs::tensor() const {
  return at::tensor({full, target, macs, parameters, static_cast<double>(removed)}, at::kDouble);
}

ChannelPruner::Costs ChannelPruner::Costs::from(const at::Tensor& tensor) {
  const auto* figures = tensor.const_data_ptr<double>();
  return {figures[0], figures[1], figures[2], figures[3], static_cast<int64_t>(figures[4])};
}

ChannelPruner::ChannelPruner(Model& model, const ChannelOptions& options,
                             const std::optional<Costs>& costs)
    : model_(model), options_(options) {
  if (costs) {
    costs_ = *costs;
  } else {
    const ChannelGroups groups = analyse(model);
    const ChannelSet none = groups.none();
    const ChannelCost now = cost_without(model, groups, none);
    costs_.parameters = static_cast<double>(now.parameters);
    costs_.macs = now.macs.value_or(0);
    costs_.full = cost(groups, none);
    costs_.target = options.budget.amount * (options.budget.is_share() ? costs_.full : 1);
  }
  for (const Weight& weight : weights(model)) {
    if (weight.stored() == nullptr) continue;  // a part of a tensor has the tensor's name
    kept_[weight.name()] = {all_indices(weight.sizes()[weight.output_dim()]),
                            all_indices(weight.sizes()[weight.input_dim()])};
  }
}

double ChannelPruner::cost(const ChannelGroups& groups, const ChannelSet& set) const {
  if (options_.budget.is_latency()) {
    Model trial = model_.clone(false);
    remove(trial, analyse(trial), set);  // the same classes: an analysis depends on the graph alone
    return limited_by(options_.budget.kind, trial);
  }
  return limited_by(options_.budget.kind, cost_without(model_, groups, set));
}

CostMeter ChannelPruner::meter(const ChannelGroups& groups, double progress) const {
  static constexpr std::array<const char*, 5> kUnits = {
      "multiply-accumulates", "parameters", "bytes", "milliseconds", "milliseconds in the engine"};
  CostMeter meter;
  meter.cost = [this, &groups](const ChannelSet& set) { return cost(groups, set); };
  meter.full = costs_.full;
  meter.target = costs_.full + (costs_.target - costs_.full) * progress;
  meter.unit = kUnits[static_cast<size_t>(options_.budget.kind)];
  return meter;
}

void ChannelPruner::note_kept(const ChannelGroups& groups, const ChannelSet& set) {
  for (const Weight& weight : weights(model_)) {
    const auto found = kept_.find(weight.name());
    if (found == kept_.end() || weight.stored() == nullptr) continue;
    keep(found->second.outputs, groups.kept(set, weight.value(), weight.output_dim()));
    keep(found->second.inputs, groups.kept(set, weight.value(), weight.input_dim()));
  }
}

void ChannelPruner::divide_by_savings(const ChannelGroups& groups, ChannelScores& scores) const {
  const double all = cost(groups, groups.none());
  for (size_t g = 0; g < scores.size(); ++g) {
    if (scores[g].empty()) continue;
    ChannelSet one = groups.none();
    groups.add(one, groups.groups()[g].units.front());
    const double saving = std::max(all - cost(groups, one), 1e-12 * all);
    for (double& score : scores[g]) score /= saving;
  }
}

int64_t ChannelPruner::prune(double progress, const ScoresOf& scores) {
  const ChannelGroups groups = analyse(model_);
  const std::vector<bool> eligible = require_eligible_groups(model_, groups, options_);
  ChannelScores found = scores(groups);
  if (options_.per_cost) divide_by_savings(groups, found);
  const ChannelOrder order(groups, found, eligible, options_);
  const ChannelSet set = choose_channels(order, meter(groups, progress));
  if (set.empty()) return 0;
  int64_t count = 0;
  for (const ChannelGroup& group : groups.groups()) {
    for (const ChannelUnit& unit : group.units) {
      count += std::all_of(unit.classes.begin(), unit.classes.end(),
                           [&](ChannelClass channel) { return set.gone[channel]; });
    }
  }
  if (before_removal) before_removal(groups, set);
  note_kept(groups, set);
  remove(model_, groups, set);
  costs_.removed += count;
  return count;
}

void ChannelPruner::report(PassContext& context) const {
  const ChannelGroups groups = analyse(model_);
  const ChannelSet none = groups.none();
  const ChannelCost costs = cost_without(model_, groups, none);
  context.count("channels_removed", costs_.removed);
  context.measure("parameters_kept", static_cast<double>(costs.parameters) / costs_.parameters);
  if (costs.macs && costs_.macs > 0) context.measure("macs_kept", *costs.macs / costs_.macs);
  if (options_.budget.is_latency()) {
    context.measure("latency_ms", limited_by(options_.budget.kind, model_));
    context.measure("latency_ms_before", costs_.full);
  }
  if (options_.budget.kind == Budget::Kind::kBytes)
    context.measure("bytes", static_cast<double>(costs.bytes));
}

}  // namespace compress
