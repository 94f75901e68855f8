// Removes whole heads of attention.
//
// A head is what leaves when one index of the dimension in front of the last two goes, of what
// enters a softmax or scaled_dot_product_attention: rows of the query, key and value projections
// with their biases, columns of the output projection. Of grouped queries a key's head goes with
// all its queries, or one query of every key.

#include "compress/graph/compact.h"
#include "compress/graph/schema.h"
#include "compress/pass.h"
#include "passes/require_graph.h"
#include "passes/structured/choose_channels.h"
#include "passes/structured/unit_index.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

namespace compress {

struct PruneHeadsOptions {
  double share = 0.25;
  ChannelCriterion criterion = ChannelCriterion::kL2;
  ChannelScope scope = ChannelScope::kLayer;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("share", share, "Share of the heads to remove; at least one of each attention stays.")
        .range(0.0, 1.0);
    field("criterion", criterion, "What says how much a head matters; one that looks at weights.");
    field("scope", scope, "What competes: the heads of each attention, or all of the model.");
    field("where", where, "The projections whose heads may go.");
  }

  void validate(Problems& problems) const {
    if (needs_activations(criterion) || criterion == ChannelCriterion::kTaylor ||
        criterion == ChannelCriterion::kBatchNorm) {
      problems.add("criterion", "does not judge heads", "take l1, l2, fpgm, lamp or random");
    }
  }
};

namespace {

bool is_along_last(const Node& softmax, int64_t rank) {
  const auto* dim = std::get_if<int64_t>(&softmax.argument("dim").data());
  return dim != nullptr && (*dim == -1 || *dim == rank - 1);
}

// Whether the value is a product of two computed ones, scaled, masked or seen in another form: what
// a query gives with a key. Behind a layer with weights it is none.
bool comes_from_product(const Value* value) {
  static const std::set<std::string_view> kProducts = {"matmul", "bmm", "baddbmm", "einsum"};
  std::vector<const Value*> open = {value};
  std::set<const Value*> seen;
  while (!open.empty()) {
    const Node* node = open.back()->producer();
    open.pop_back();
    if (node == nullptr) continue;
    std::vector<const Value*> operands;
    for (const Argument& argument : node->arguments()) {
      argument.each_value([&](const Value* operand) {
        if (operand->kind() == ValueKind::kTensor) operands.push_back(operand);
      });
    }
    const bool weighted = std::any_of(operands.begin(), operands.end(), [](const Value* operand) {
      return operand->is_named_tensor();
    });
    if (kProducts.contains(base_name(node->op())) && !weighted) return true;
    const OperatorKind kind = operator_kind(*node);
    if (kind == OperatorKind::kConv || kind == OperatorKind::kLinear) continue;
    for (const Value* operand : operands) {
      if (seen.insert(operand).second) open.push_back(operand);
    }
  }
  return false;
}

// Which groups are heads.
std::vector<bool> head_groups(const Model& model, const ChannelGroups& groups) {
  const UnitIndex units(groups);
  std::vector<bool> is_head(groups.groups().size(), false);
  for (const Node& node : model.graph().nodes()) {
    const std::string name = base_name(node.op());
    if (name != "softmax" && name != "_softmax" && name != "scaled_dot_product_attention") continue;
    const Value* scores = node.arguments()[0].value();
    if (scores == nullptr) continue;
    if (name != "scaled_dot_product_attention" &&
        (!is_along_last(node, groups.rank(scores)) || !comes_from_product(scores))) {
      continue;
    }
    for (int64_t d = 0; d + 2 < groups.rank(scores); ++d) {
      for (const ChannelClass channel : groups.classes(scores, d)) {
        for (const UnitIndex::Place& place : units.of(channel)) is_head[place.group] = true;
      }
    }
  }
  return is_head;
}

}  // namespace

class PruneHeads final : public PassWith<PruneHeadsOptions> {
 public:
  static constexpr PassInfo kInfo{"prune.heads",
                                  "Removes whole heads of attention",
                                  Needs::kWeights,
                                  Keeps::kDtypes,
                                  Locality::kModel,
                                  "Michel et al., Are Sixteen Heads Really Better than One?, "
                                  "NeurIPS 2019; heads are found as in Fang et al., CVPR 2023"};

  void check(const Model& model, const Options&) const override {
    require_graph(model, "attention heads");
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    const ChannelGroups groups = analyse(model);
    const std::vector<bool> heads = head_groups(model, groups);
    if (std::find(heads.begin(), heads.end(), true) == heads.end()) {
      throw Error(ErrorCode::kInvalidArgument, "the model has no attention whose heads can go", {},
                  "`lathe inspect MODEL --groups` shows what can");
    }
    const ChannelOptions channels = channel_options(options);
    std::vector<bool> eligible = require_eligible_groups(model, groups, channels);
    std::vector<const ChannelUnit*> units;
    for (size_t g = 0; g < eligible.size(); ++g) {
      eligible[g] = eligible[g] && heads[g];
      if (!eligible[g]) continue;
      for (const ChannelUnit& unit : groups.groups()[g].units) units.push_back(&unit);
    }
    if (units.empty()) {
      throw Error(ErrorCode::kInvalidArgument, "the selected layers make no heads", "where",
                  "select the projections of an attention");
    }
    if (!context.begin("heads")) return Change::kNone;
    const auto left = [&](const ChannelSet& set) {
      return std::count_if(units.begin(), units.end(), [&](const ChannelUnit* unit) {
        return std::any_of(unit->classes.begin(), unit->classes.end(),
                           [&](ChannelClass channel) { return !set.gone[channel]; });
      });
    };
    const auto all = static_cast<double>(units.size());
    const ChannelOrder order(groups, data_free_scores(model, groups, channels, context), eligible,
                             channels);
    const auto heads_left = [&](const ChannelSet& set) { return static_cast<double>(left(set)); };
    // Rounded down to whole heads, but for what a product of decimals is off.
    const double asked = std::ceil(all * (1 - options.share) - 1e-9);
    const double target = std::max(asked, heads_left(order.first(order.size())));
    const CostMeter meter{heads_left, all, target, target, "heads"};
    const ChannelSet set = choose_channels(order, meter);
    const auto removed = static_cast<int64_t>(units.size()) - left(set);
    remove(model, groups, set);
    context.count("heads_removed", removed);
    context.measure("heads_kept", 1 - static_cast<double>(removed) / all);
    return removed > 0 ? Change::kSome : Change::kNone;
  }

 private:
  static ChannelOptions channel_options(const Options& options) {
    ChannelOptions channels;
    channels.criterion = options.criterion;
    channels.scope = options.scope;
    channels.most = 1;  // one always stays
    channels.where = options.where;
    return channels;
  }
};

COMPRESS_PASS(PruneHeads)

}  // namespace compress
