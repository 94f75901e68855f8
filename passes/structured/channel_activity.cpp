// Scores of channels by what they do.

#include "passes/structured/channel_activity.h"

#include "compress/graph/interpreter.h"
#include "compress/graph/schema.h"
#include "compress/weight.h"
#include "passes/second_order/calibrated_layers.h"
#include "passes/structured/unit_index.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/linalg_inv.h>
#include <ATen/ops/linalg_matrix_rank.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

namespace compress {
namespace {

constexpr int64_t kRankedSamples = 64;
constexpr double kDamping = 0.01;

bool is_nonlinear(const Node& node) {
  static const std::set<std::string_view> kNames = {
      "relu", "relu6",    "hardtanh",    "gelu", "silu",    "hardswish", "leaky_relu", "elu",
      "mish", "softplus", "hardsigmoid", "tanh", "sigmoid", "prelu",     "celu",       "selu"};
  return kNames.contains(base_name(node.op()));
}

struct Site {
  const Value* value;
  int64_t dim;
};

bool speaks_of_units(const ChannelGroups& groups, const UnitIndex& units, const Value* value,
                     int64_t dim) {
  const auto& classes = groups.classes(value, dim);
  return std::any_of(classes.begin(), classes.end(),
                     [&](ChannelClass channel) { return !units.of(channel).empty(); });
}

// Values with the dimension along which channels can go: the first behind that of samples, which is
// the one of channels in images, or a later one.
std::vector<Site> sites(const Model& model, const ChannelGroups& groups, const UnitIndex& units,
                        bool nonlinear) {
  std::vector<Site> found;
  for (const Node& node : model.graph().nodes()) {
    const Value* output = node.outputs().front();
    if (is_nonlinear(node) != nonlinear) continue;
    const OperatorKind kind = operator_kind(node);
    if (!nonlinear && kind != OperatorKind::kConv && kind != OperatorKind::kLinear) continue;
    for (int64_t dim = 1; dim < groups.rank(output); ++dim) {
      if (!speaks_of_units(groups, units, output, dim)) continue;
      found.push_back({output, dim});
      break;
    }
  }
  return found;
}

// Those that speak of a group that `spoken_of` does not have yet.
std::vector<Site> needed(const std::vector<Site>& all, const ChannelGroups& groups,
                         const UnitIndex& units, std::set<size_t>& spoken_of) {
  std::set<size_t> now;
  std::vector<Site> chosen;
  for (const Site& site : all) {
    bool speaks = false;
    for (const ChannelClass channel : groups.classes(site.value, site.dim)) {
      for (const UnitIndex::Place& place : units.of(channel)) {
        if (spoken_of.contains(place.group)) continue;
        now.insert(place.group);
        speaks = true;
      }
    }
    if (speaks) chosen.push_back(site);
  }
  spoken_of.insert(now.begin(), now.end());
  return chosen;
}

}  // namespace

at::Tensor share_of_nonzeros(const at::Tensor& activation, int64_t dim) {
  return activation.ne(0).transpose(0, dim).flatten(1).to(at::kFloat).mean(1).to(at::kDouble);
}

at::Tensor mean_rank(const at::Tensor& maps) {
  return at::linalg_matrix_rank(maps.to(at::kFloat)).to(at::kDouble).mean(0);
}

std::vector<DimScores> activity_scores(const Model& model, const ChannelGroups& groups,
                                       ChannelCriterion criterion, const BatchSource& batches) {
  const UnitIndex units(groups);
  std::set<size_t> spoken_of;
  std::vector<Site> chosen = needed(sites(model, groups, units, true), groups, units, spoken_of);
  for (const Site& site : needed(sites(model, groups, units, false), groups, units, spoken_of)) {
    chosen.push_back(site);
  }
  const bool ranks = criterion == ChannelCriterion::kHrank;
  std::map<const Value*, DimScores> by_value;
  for (const Site& site : chosen) {
    if (ranks && (groups.rank(site.value) != 4 || site.dim != 1)) continue;
    by_value[site.value] = {site.value, site.dim, {}};
  }
  int64_t samples = 0;
  const c10::NoGradGuard no_grad;
  Interpreter interpreter(model);
  batches([&](const std::vector<at::Tensor>& inputs) {
    int64_t count = inputs.front().size(0);
    if (ranks) count = std::min(count, kRankedSamples - samples);
    if (count <= 0) return;
    samples += count;
    interpreter.run(inputs, [&](const Value& value, const c10::IValue& content) {
      const auto found = by_value.find(&value);
      if (found == by_value.end()) return;
      const at::Tensor& activation = content.toTensor();
      DimScores& entry = found->second;
      const at::Tensor score = ranks ? mean_rank(activation.narrow(0, 0, count))
                                     : share_of_nonzeros(activation, entry.dim);
      const at::Tensor weighted = score.mul(static_cast<double>(count));
      entry.scores = entry.scores.defined() ? entry.scores.add(weighted) : weighted;
    });
  });
  std::vector<DimScores> all;
  for (const Site& site : chosen) {
    const auto found = by_value.find(site.value);
    if (found == by_value.end() || !found->second.scores.defined()) continue;
    found->second.scores.div_(static_cast<double>(samples));
    all.push_back(found->second);
  }
  return all;
}

at::Tensor obs_scores(const at::Tensor& weight, const at::Tensor& gram, int64_t each) {
  const at::Tensor w = weight.to(at::kDouble);
  const double mean = std::max(gram.diagonal().mean().item<double>(), 1e-30);
  const at::Tensor damped = gram + kDamping * mean * at::eye(gram.size(0), gram.options());
  const at::Tensor inverse = at::cholesky_inverse(at::linalg_cholesky(damped));
  const int64_t channels = gram.size(0) / each;
  // [channels, each, each]
  const at::Tensor blocks =
      inverse.view({channels, each, channels, each}).diagonal(0, 0, 2).permute({2, 0, 1});
  const at::Tensor slabs =
      w.view({-1, channels, each}).permute({1, 0, 2});  // [channels, rows, each]
  const at::Tensor lost =
      at::linalg_inv(blocks).matmul(slabs.transpose(1, 2)).mul(slabs.transpose(1, 2)).sum({1, 2});
  const double energy = w.matmul(gram).mul(w).sum().item<double>();
  return lost / std::max(energy, 1e-30);
}

std::vector<DimScores> obs_scores(const Model& model, const BatchSource& batches) {
  std::vector<const Weight*> known;
  const std::vector<Weight> all = weights(model);
  Wishes wishes;
  for (const Weight& weight : all) {
    if (weight.groups() != 1 || !no_input_matrix(weight).empty()) continue;
    known.push_back(&weight);
    wishes.push_back({weight.layer()->output()->name(), Statistic::kInputGram});
  }
  const Statistics statistics = collect_statistics(model, wishes, batches);
  std::vector<DimScores> scores;
  for (size_t i = 0; i < known.size(); ++i) {
    const Weight& weight = *known[i];
    const at::Tensor matrix = as_matrix(weight.effective(), weight.output_dim());
    const int64_t each = matrix.size(1) / weight.sizes()[weight.input_dim()];
    scores.push_back({weight.value(), weight.input_dim(),
                      obs_scores(matrix, statistics.at(wishes[i])[0], each)});
  }
  return scores;
}

}  // namespace compress
