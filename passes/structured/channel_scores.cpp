// Scores of channels.

#include "passes/structured/channel_scores.h"

#include "compress/weight.h"
#include "passes/structured/unit_index.h"

#include <ATen/ops/cdist.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace compress {
namespace {

at::Tensor distances_to_others(const at::Tensor& weight, int64_t dim) {
  const at::Tensor rows = as_matrix(weight, dim).to(at::kFloat);
  return at::cdist(rows, rows).sum(1, false, at::kDouble);
}

// A tensor that channels are dimensions of, as layers see it.
struct Member {
  const Value* value;
  at::Tensor tensor;
  int64_t output_dim;
  bool is_norm;
};

// The scales of norms; a scale that several norms share comes once.
std::vector<Member> norm_scales(const Model& model) {
  std::vector<Member> members;
  std::set<const Value*> seen;
  for (const Node& node : model.graph().nodes()) {
    if (operator_kind(node) != OperatorKind::kNorm) continue;
    const auto index = node.argument_index("weight");
    if (!index || !node.arguments()[*index].is_value()) continue;
    const Value* value = node.arguments()[*index].value();
    const NamedTensor* named = model.find_tensor(value->name());
    if (named == nullptr || !named->tensor.defined() || !seen.insert(value).second) continue;
    members.push_back({value, named->tensor.detach(), 0, true});
  }
  return members;
}

std::vector<Member> members_of(const Model& model) {
  std::vector<Member> members;
  for (const Weight& weight : weights(model)) {
    members.push_back({weight.value(), weight.effective(), weight.output_dim(), false});
  }
  for (Member& scale : norm_scales(model)) members.push_back(std::move(scale));
  return members;
}

double reduced(const std::vector<double>& scores, ScoreReduction reduction) {
  switch (reduction) {
    case ScoreReduction::kFirst:
      return scores.front();
    case ScoreReduction::kMax:
      return *std::max_element(scores.begin(), scores.end());
    case ScoreReduction::kProduct:
      return std::accumulate(scores.begin(), scores.end(), 1.0, std::multiplies<>());
    default:
      break;
  }
  const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
  return reduction == ScoreReduction::kSum ? sum : sum / static_cast<double>(scores.size());
}

}  // namespace

at::Tensor sum_over_others(const at::Tensor& tensor, int64_t dim) {
  std::vector<int64_t> others;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (d != dim) others.push_back(d);
  }
  return others.empty() ? tensor.to(at::kDouble) : tensor.sum(others, false, at::kDouble);
}

std::vector<DimScores> weight_scores(const Model& model, ChannelCriterion criterion) {
  std::vector<DimScores> all;
  for (const Member& member : members_of(model)) {
    if (criterion == ChannelCriterion::kBatchNorm) {
      if (member.is_norm) all.push_back({member.value, 0, member.tensor.abs().to(at::kDouble)});
      continue;
    }
    if (criterion == ChannelCriterion::kFpgm) {
      if (member.is_norm) continue;
      all.push_back(
          {member.value, member.output_dim, distances_to_others(member.tensor, member.output_dim)});
      continue;
    }
    const at::Tensor powers =
        criterion == ChannelCriterion::kL1 ? member.tensor.abs() : member.tensor.square();
    for (int64_t d = 0; d < powers.dim(); ++d) {
      all.push_back({member.value, d, sum_over_others(powers, d)});
    }
  }
  return all;
}

void TaylorScores::add(const Model& model) {
  const auto add_one = [&](const std::string& name, const at::Tensor& tensor) {
    if (!tensor.grad().defined()) return;
    const at::Tensor change = tensor.detach().mul(tensor.grad());
    for (int64_t d = 0; d < change.dim(); ++d) {
      at::Tensor& sum = sums_[{name, d}];
      const at::Tensor squares = sum_over_others(change, d).square_();
      sum = sum.defined() && sum.numel() == squares.numel() ? sum.add(squares) : squares;
    }
  };
  for (const Weight& weight : weights(model)) {
    if (weight.stored() != nullptr) add_one(weight.stored()->name, weight.stored()->tensor);
  }
  for (const Member& scale : norm_scales(model)) {
    add_one(scale.value->name(), model.tensor(scale.value->name()));
  }
  ++batches_;
}

std::vector<DimScores> TaylorScores::scores(const Model& model) const {
  std::vector<DimScores> all;
  if (batches_ == 0) return all;
  for (const auto& [key, sum] : sums_) {
    const Value* value = model.graph().find(key.first);
    if (value == nullptr || model.tensor(key.first).size(key.second) != sum.numel()) continue;
    all.push_back({value, key.second, sum.div(static_cast<double>(batches_))});
  }
  return all;
}

void TaylorScores::clear() {
  sums_.clear();
  batches_ = 0;
}

std::map<std::string, at::Tensor> TaylorScores::state() const {
  std::map<std::string, at::Tensor> state;
  for (const auto& [key, sum] : sums_) state[std::to_string(key.second) + "/" + key.first] = sum;
  if (batches_ > 0) state["batches"] = at::tensor(batches_, at::kLong);
  return state;
}

void TaylorScores::restore(const std::map<std::string, at::Tensor>& state) {
  clear();
  for (const auto& [name, tensor] : state) {
    if (name == "batches") {
      batches_ = tensor.item<int64_t>();
      continue;
    }
    const size_t slash = name.find('/');
    sums_[{name.substr(slash + 1), std::stoll(name.substr(0, slash))}] = tensor;
  }
}

ChannelScores combine(const ChannelGroups& groups, const std::vector<DimScores>& dims,
                      ScoreReduction reduction) {
  const UnitIndex units(groups);
  const auto& list = groups.groups();
  std::vector<std::vector<std::vector<double>>> members(list.size());  // [group][unit][dimension]
  for (size_t g = 0; g < list.size(); ++g) members[g].resize(list[g].units.size());
  std::map<size_t, std::vector<double>> sums;  // of one dimension, by group
  for (const DimScores& dim : dims) {
    const std::vector<ChannelClass>& classes = groups.classes(dim.value, dim.dim);
    const at::Tensor scores = dim.scores.to(at::kCPU, at::kDouble).contiguous();
    const auto* score = scores.const_data_ptr<double>();
    sums.clear();
    for (size_t i = 0; i < classes.size(); ++i) {
      for (const UnitIndex::Place& place : units.of(classes[i])) {
        std::vector<double>& of_group = sums[place.group];
        of_group.resize(list[place.group].units.size());
        of_group[place.unit] += score[i];
      }
    }
    for (const auto& [group, of_units] : sums) {
      for (size_t u = 0; u < of_units.size(); ++u) members[group][u].push_back(of_units[u]);
    }
  }
  ChannelScores result(list.size());
  for (size_t g = 0; g < list.size(); ++g) {
    if (members[g].empty() || members[g].front().empty()) continue;
    for (const auto& of_unit : members[g]) result[g].push_back(reduced(of_unit, reduction));
  }
  return result;
}

ChannelScores random_scores(const ChannelGroups& groups, at::Generator generator) {
  ChannelScores scores;
  for (const ChannelGroup& group : groups.groups()) {
    const at::Tensor drawn =
        at::rand({static_cast<int64_t>(group.units.size())}, generator, at::kDouble);
    const auto* data = drawn.const_data_ptr<double>();
    scores.emplace_back(data, data + drawn.numel());
  }
  return scores;
}

std::vector<double> lamp(const std::vector<double>& squares) {
  std::vector<size_t> order(squares.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return squares[a] < squares[b]; });
  std::vector<double> scores(squares.size());
  double tail = 0;
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    tail += squares[*it];
    scores[*it] = tail > 0 ? squares[*it] / tail : 0;
  }
  return scores;
}

void normalize(std::vector<double>& scores, ScoreNormalization how) {
  if (scores.empty() || how == ScoreNormalization::kNone) return;
  const auto count = static_cast<double>(scores.size());
  const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
  const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
  double offset = 0, scale = 1;
  switch (how) {
    case ScoreNormalization::kMean:
      scale = sum / count;
      break;
    case ScoreNormalization::kSum:
      scale = sum;
      break;
    case ScoreNormalization::kMax:
      scale = *high;
      break;
    case ScoreNormalization::kRange:
      offset = *low;
      scale = *high - *low;
      break;
    default: {
      offset = sum / count;
      double squares = 0;
      for (const double score : scores) squares += (score - offset) * (score - offset);
      scale = std::sqrt(squares / std::max(1.0, count - 1));
    }
  }
  if (scale == 0) scale = 1;  // all are equal
  for (double& score : scores) score = (score - offset) / scale;
}

ChannelScores finish_scores(const ChannelGroups& groups, const std::vector<DimScores>& dims,
                            const ChannelOptions& options) {
  ChannelScores scores = combine(groups, dims, options.reduction);
  for (std::vector<double>& of_group : scores) {
    if (options.criterion == ChannelCriterion::kLamp) {
      of_group = lamp(of_group);  // comparable as they are: the largest of each group has 1
    } else {
      normalize(of_group, options.normalization);
    }
  }
  return scores;
}

ChannelScores data_free_scores(const Model& model, const ChannelGroups& groups,
                               const ChannelOptions& options, const PassContext& context) {
  if (options.criterion == ChannelCriterion::kRandom) {
    return random_scores(groups, context.generator("channels"));
  }
  return finish_scores(groups, weight_scores(model, options.criterion), options);
}

}  // namespace compress
