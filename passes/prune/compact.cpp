// Removes the channels that nobody hears.
//
// Where all weights that read a channel are zero, by a mask or by themselves, what the channel
// holds makes no difference, and it goes with everything that only it needs. A channel that is
// silent because the weights, biases and norms that make it are zero goes, too. Either has to be
// confirmed by a run on random inputs whose outputs stay: not only weights read channels (a sum
// does), and behind a sigmoid a zero is heard. Masks themselves stay where single weights of a
// channel are left.

#include "compress/graph/compact.h"

#include "compress/graph/shapes.h"
#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/require_graph.h"
#include "passes/structured/channel_scores.h"
#include "passes/structured/choose_channels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <optional>

namespace compress {

struct PruneCompactOptions {
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("where", where, "The layers whose output channels may go.");
  }
};

namespace {

constexpr double kSame = 1e-5;  // relative; sums of fewer terms round differently

// Units that a sum over some dimensions finds to be zero, and that the dimensions speak of.
std::vector<std::vector<bool>> zero_units(const ChannelGroups& groups,
                                          const std::vector<DimScores>& dims) {
  const ChannelScores sums = combine(groups, dims, ScoreReduction::kSum);
  std::vector<std::vector<bool>> zero(sums.size());
  for (size_t g = 0; g < sums.size(); ++g) {
    zero[g].assign(groups.groups()[g].units.size(), false);
    for (size_t u = 0; u < sums[g].size(); ++u) zero[g][u] = sums[g][u] == 0;
  }
  return zero;
}

// What reads channels, and what makes them.
struct Sides {
  std::vector<DimScores> readers, makers;
};

Sides sides_of(const Model& model) {
  Sides sides;
  for (const Weight& weight : weights(model)) {
    const at::Tensor magnitudes = weight.effective().detach().abs();
    sides.readers.push_back(
        {weight.value(), weight.input_dim(), sum_over_others(magnitudes, weight.input_dim())});
    sides.makers.push_back(
        {weight.value(), weight.output_dim(), sum_over_others(magnitudes, weight.output_dim())});
  }
  for (const Node& node : model.graph().nodes()) {
    const OperatorKind kind = operator_kind(node);
    const bool is_norm = kind == OperatorKind::kNorm;
    for (const char* name : {"weight", "bias"}) {
      if (!node.has_argument(name) || (!is_norm && std::string_view(name) == "weight")) continue;
      const Value* value = node.argument(name).value();
      if (value == nullptr || !value->is_named_tensor()) continue;
      const at::Tensor& tensor = model.tensor(value->name());
      if (tensor.dim() != 1) continue;
      sides.makers.push_back({value, 0, tensor.detach().abs().to(at::kDouble)});
    }
  }
  return sides;
}

class OutputCheck {
 public:
  OutputCheck(const Model& model, at::Generator generator) {
    for (const at::Tensor& input : example_inputs(model)) {
      inputs_.push_back(
          input.is_floating_point() ? at::randn(input.sizes(), generator, input.options()) : input);
    }
    wanted_ = model.forward(inputs_);
  }

  bool holds_without(const Model& model, const ChannelSet& set) const {
    Model trial = model.clone(false);
    remove(trial, analyse(trial), set);  // the same classes: an analysis depends on the graph alone
    const std::vector<at::Tensor> outputs = trial.forward(inputs_);
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!outputs[i].is_floating_point()) {
        if (!outputs[i].equal(wanted_[i])) return false;
        continue;
      }
      const double scale = wanted_[i].abs().max().item<double>();
      const double off = (outputs[i] - wanted_[i]).abs().max().item<double>();
      if (!(off <= kSame * std::max(scale, 1e-30))) return false;
    }
    return true;
  }

 private:
  std::vector<at::Tensor> inputs_, wanted_;
};

}  // namespace

class PruneCompact final : public PassWith<PruneCompactOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.compact",  "Removes the channels that nobody hears",
      Needs::kWeights,  Keeps::kDtypes | Keeps::kOutputs,
      Locality::kModel, "Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023"};

  void check(const Model& model, const Options&) const override {
    require_graph(model, "channels");
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    const c10::NoGradGuard no_grad;
    if (!context.begin("dead channels")) return Change::kNone;
    int64_t removed = 0;
    // What goes takes the weights along that read something else: then that may be dead, too.
    for (int64_t round = removed_in_a_round(model, options, context); round > 0;
         round = removed_in_a_round(model, options, context)) {
      removed += round;
    }
    context.count("channels_removed", removed);
    return removed > 0 ? Change::kSome : Change::kNone;
  }

 private:
  static int64_t removed_in_a_round(Model& model, const Options& options, PassContext& context) {
    const ChannelGroups groups = analyse(model);
    if (groups.groups().empty()) return 0;
    ChannelOptions channels;
    channels.where = options.where;
    channels.exact = true;
    const std::vector<bool> eligible = eligible_groups(model, groups, channels);
    const Sides sides = sides_of(model);
    const auto unheard = zero_units(groups, sides.readers),
               silent = zero_units(groups, sides.makers);
    ChannelSet set = groups.none();
    int64_t count = 0;
    const auto add = [&](size_t g, size_t u, ChannelSet& to) {
      const bool added = groups.add(to, groups.groups()[g].units[u]);
      return int64_t{added};
    };
    std::optional<OutputCheck> check;
    // The two kinds apart: where one is heard all the same, the other may still go.
    for (const auto* dead : {&unheard, &silent}) {
      for (size_t g = 0; g < eligible.size(); ++g) {
        ChannelSet with = set;
        int64_t more = 0;
        for (size_t u = 0; eligible[g] && u < (*dead)[g].size(); ++u) {
          if ((*dead)[g][u]) more += add(g, u, with);
        }
        if (more == 0) continue;
        if (!check) check.emplace(model, context.generator("inputs"));
        if (!check->holds_without(model, with)) continue;
        set = std::move(with);
        count += more;
      }
    }
    if (count > 0) remove(model, groups, set);
    return count;
  }
};

COMPRESS_PASS(PruneCompact)

}  // namespace compress
