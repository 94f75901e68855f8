// The rounds of channel pruning.

#include "passes/structured/channel_pruner.h"

#include "compress/budget/channel_cost.h"
#include "compress/graph/compact.h"
#include "compress/weight.h"

#include <ATen/ops/tensor.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

namespace compress {
namespace {

constexpr std::string_view kSizesOf = "sizes of ";

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

std::map<std::string, at::Tensor> ChannelPruner::Costs::state() const {
  std::map<std::string, at::Tensor> state;
  state["costs"] =
      at::tensor({full, target, macs, parameters, static_cast<double>(removed)}, at::kDouble);
  for (const auto& [name, of_tensor] : sizes) {
    state[std::string(kSizesOf) + name] = at::tensor(of_tensor, at::kLong);
  }
  return state;
}

ChannelPruner::Costs ChannelPruner::Costs::from(std::map<std::string, at::Tensor>& state) {
  const at::Tensor costs = state.at("costs");
  const auto* figures = costs.const_data_ptr<double>();
  Costs out{figures[0], figures[1], figures[2], figures[3], static_cast<int64_t>(figures[4]), {}};
  std::erase_if(state, [&](const auto& entry) {
    const auto& [name, tensor] = entry;
    if (!name.starts_with(kSizesOf)) return name == "costs";
    const auto* sizes = tensor.template const_data_ptr<int64_t>();
    out.sizes[name.substr(kSizesOf.size())] = {sizes, sizes + tensor.numel()};
    return true;
  });
  return out;
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
    for (const NamedTensor& named : model.tensors()) {
      if (named.tensor.defined()) costs_.sizes[named.name] = named.tensor.sizes().vec();
    }
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
  meter.budget = costs_.target;
  meter.unit = kUnits[static_cast<size_t>(options_.budget.kind)];
  return meter;
}

// Which of the first model's units of each group are no longer there, as far as a tensor tells that
// has the group's channels alone along one of its dimensions.
std::vector<int64_t> ChannelPruner::gone(const ChannelGroups& groups) const {
  std::vector<int64_t> gone(groups.groups().size(), 0);
  for (size_t g = 0; g < gone.size(); ++g) {
    const auto units = static_cast<int64_t>(groups.groups()[g].units.size());
    for (const ChannelDim& dim : groups.groups()[g].dims) {
      const auto first = costs_.sizes.find(dim.tensor->name());
      const int64_t each = dim.indices_each;
      if (first == costs_.sizes.end() ||
          groups.classes(dim.tensor, dim.dim).size() != static_cast<size_t>(units * each)) {
        continue;
      }
      gone[g] = first->second.at(static_cast<size_t>(dim.dim)) / each - units;
      break;
    }
  }
  return gone;
}

// Any order serves: with all that may go the same is left.
void ChannelPruner::require_reachable() const {
  const ChannelGroups groups = analyse(model_);
  const std::vector<bool> eligible = require_eligible_groups(model_, groups, options_);
  ChannelScores equal;
  for (const ChannelGroup& group : groups.groups()) equal.emplace_back(group.units.size(), 0.0);
  const ChannelOrder order(groups, equal, eligible, options_);
  const CostMeter last = meter(groups, 1);
  const double least = last.cost(order.first(order.size()));
  if (least > last.target) throw_unreachable(last, least);
}

void ChannelPruner::note_kept(const ChannelGroups& groups, const ChannelSet& set) {
  for (const Weight& weight : weights(model_)) {
    const auto found = kept_.find(weight.name());
    if (found == kept_.end() || weight.stored() == nullptr) continue;
    keep(found->second.outputs, groups.kept(set, weight.value(), weight.output_dim()));
    keep(found->second.inputs, groups.kept(set, weight.value(), weight.input_dim()));
  }
}

// A single channel saves less time than a clock can tell: latencies count as the
// multiply-accumulates that they spare.
void ChannelPruner::divide_by_savings(const ChannelGroups& groups, ChannelScores& scores) const {
  const Budget::Kind kind =
      options_.budget.is_latency() ? Budget::Kind::kMacs : options_.budget.kind;
  const auto cost_of = [&](const ChannelSet& set) {
    return limited_by(kind, cost_without(model_, groups, set));
  };
  const double all = cost_of(groups.none());
  for (size_t g = 0; g < scores.size(); ++g) {
    if (scores[g].empty()) continue;
    ChannelSet one = groups.none();
    groups.add(one, groups.groups()[g].units.front());
    const double saving = std::max(all - cost_of(one), 1e-12 * all);
    for (double& score : scores[g]) score /= saving;
  }
}

void ChannelPruner::require_scores(const ChannelScores& scores, const std::vector<bool>& eligible) {
  int64_t candidates = 0;
  silent_ = 0;
  for (size_t g = 0; g < eligible.size(); ++g) {
    candidates += eligible[g] ? 1 : 0;
    silent_ += eligible[g] && scores[g].empty() ? 1 : 0;
  }
  if (silent_ < candidates) return;
  const auto names = option_names(options_.criterion);
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("`{}` says nothing about the selected channels",
                          names[static_cast<size_t>(options_.criterion)]),
              "criterion", "take another one, for example l2");
}

int64_t ChannelPruner::prune(double progress, const ScoresOf& scores) {
  const ChannelGroups groups = analyse(model_);
  const std::vector<bool> eligible = require_eligible_groups(model_, groups, options_);
  ChannelScores found = scores(groups);
  if (options_.per_cost) divide_by_savings(groups, found);
  require_scores(found, eligible);
  const ChannelOrder order(groups, found, eligible, options_, gone(groups));
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

void require_reachable_share(const Model& model, const ChannelOptions& options) {
  if (!options.budget.is_share() || model.is_tensor_set()) return;
  Model trial = model.clone(false);
  ChannelPruner(trial, options).require_reachable();
}

void ChannelPruner::report(PassContext& context) const {
  const ChannelGroups groups = analyse(model_);
  const ChannelSet none = groups.none();
  const ChannelCost costs = cost_without(model_, groups, none);
  context.count("channels_removed", costs_.removed);
  if (silent_ > 0) {
    const auto names = option_names(options_.criterion);
    context.count("groups_without_scores", silent_);
    context.message(fmt::format("{} stayed whole, as `{}` says nothing about {}",
                                silent_ == 1 ? "a group" : fmt::format("{} groups", silent_),
                                names[static_cast<size_t>(options_.criterion)],
                                silent_ == 1 ? "it" : "them"));
  }
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
