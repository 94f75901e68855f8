// Leaves out the residual blocks of least effect.
//
// A block s(x) + f(x) can be replaced by s(x), its skip connection. How much it does is seen on
// calibration data: from one run, how far it moves what passes through it; or, with a run for each
// block, how far the model's output moves without it.

#include "compress/budget/budget.h"
#include "compress/budget/channel_cost.h"
#include "compress/calibrate/statistics.h"
#include "compress/graph/interpreter.h"
#include "compress/pass.h"
#include "passes/structured/residual_blocks.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace compress {

enum class BlockCriterion {
  kOutput,  ///< relative squared change of the model's first output without the block
  kChange,  ///< |f(x)|^2 / |x + f(x)|^2, over all samples
};
inline std::vector<std::string_view> option_names(BlockCriterion) { return {"output", "change"}; }

struct PruneLayersOptions {
  Budget budget = Budget::macs(0.8);
  BlockCriterion criterion = BlockCriterion::kOutput;
  std::vector<std::string> keep;

  template <class Visitor>
  void visit(Visitor& field) {
    field("budget", budget, "What the model may cost in the end.");
    field("criterion", criterion,
          "What says how much a block matters: what its absence does to the output (a run for each "
          "block, again after each removal), or how far it moves its input (one run).");
    field("keep", keep, "Globs of the names of blocks that must stay.");
  }
};

namespace {

double squares(const at::Tensor& tensor) {
  return tensor.to(at::kDouble).square().sum().item<double>();
}

std::vector<at::Tensor> outputs(const Model& model, const BatchSource& batches) {
  std::vector<at::Tensor> all;
  batches([&](const std::vector<at::Tensor>& inputs) { all.push_back(model.forward(inputs)[0]); });
  return all;
}

double relative_difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double difference = 0, energy = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += squares(a[i] - b[i]);
    energy += squares(b[i]);
  }
  return difference / std::max(energy, std::numeric_limits<double>::min());
}

// The blocks of the model as it was, by the names of their values: which they are does not depend
// on the order in which they go.
class Blocks {
 public:
  Blocks(Model& model, const std::vector<std::string>& keep) {
    std::vector<bool> matched(keep.size(), false);
    for (const ResidualBlock& block : residual_blocks(model)) {
      bool stays = false;
      for (size_t i = 0; i < keep.size(); ++i) {
        if (!matches_glob(keep[i], block.name)) continue;
        stays = matched[i] = true;
      }
      if (!stays) entries_.push_back({block.sum->output()->name(), block.skip->name(), block.name});
    }
    for (size_t i = 0; i < keep.size(); ++i) {
      if (matched[i]) continue;
      throw Error(ErrorCode::kInvalidArgument, fmt::format("`{}` matches no block", keep[i]),
                  fmt::format("keep/{}", i), "blocks are named like `layer1.0`");
    }
  }

  /// Those that `model`, which the blocks were found in or a clone of it, still has.
  std::vector<ResidualBlock> left(Model& model) const {
    std::vector<ResidualBlock> blocks;
    for (const Entry& entry : entries_) {
      Value* sum = model.graph().find(entry.sum);
      if (sum == nullptr) continue;
      blocks.push_back({sum->producer(), model.graph().find(now_called(entry.skip)), entry.name});
    }
    return blocks;
  }

  /// Leaves out one of `left`.
  void skip(Model& model, const ResidualBlock& block) {
    instead_[block.sum->output()->name()] = block.skip->name();
    skip_block(model, block);
  }

 private:
  struct Entry {
    std::string sum, skip, name;
  };
  // A block's skip connection may begin with the sum of one that has gone.
  std::string now_called(std::string name) const {
    for (auto found = instead_.find(name); found != instead_.end(); found = instead_.find(name)) {
      name = found->second;
    }
    return name;
  }

  std::vector<Entry> entries_;
  std::map<std::string, std::string> instead_;
};

// The same block in a clone of the model.
void skip_in(Model& clone, const ResidualBlock& block) {
  ResidualBlock same;
  same.sum = clone.graph().find(block.sum->output()->name())->producer();
  same.skip = clone.graph().find(block.skip->name());
  skip_block(clone, same);
}

std::vector<double> output_scores(const Model& model, const std::vector<ResidualBlock>& blocks,
                                  const std::vector<at::Tensor>& wanted, PassContext& context) {
  std::vector<double> scores;
  for (const ResidualBlock& block : blocks) {
    Model without = model.clone(false);
    skip_in(without, block);
    scores.push_back(relative_difference(outputs(without, context.calibration()), wanted));
  }
  return scores;
}

std::vector<double> change_scores(const Model& model, const std::vector<ResidualBlock>& blocks,
                                  PassContext& context) {
  std::map<const Value*, std::vector<size_t>> watched;
  for (size_t i = 0; i < blocks.size(); ++i) {
    watched[blocks[i].skip].push_back(i);
    watched[blocks[i].sum->output()].push_back(i);
  }
  std::vector<double> moved(blocks.size(), 0), energy(blocks.size(), 0);
  std::vector<at::Tensor> skipped(blocks.size());
  Interpreter interpreter(model);
  context.calibration()([&](const std::vector<at::Tensor>& inputs) {
    interpreter.run(inputs, [&](const Value& value, const c10::IValue& content) {
      const auto found = watched.find(&value);
      if (found == watched.end()) return;
      for (const size_t i : found->second) {
        const at::Tensor& tensor = content.toTensor();
        if (&value == blocks[i].skip) {
          skipped[i] = tensor;
          continue;
        }
        moved[i] += squares(tensor - skipped[i]);
        energy[i] += squares(tensor);
        skipped[i].reset();
      }
    });
  });
  for (size_t i = 0; i < blocks.size(); ++i) {
    moved[i] /= std::max(energy[i], std::numeric_limits<double>::min());
  }
  return moved;
}

}  // namespace

class PruneLayers final : public PassWith<PruneLayersOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.layers",
      "Leaves out the residual blocks of least effect",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, "
      "NeurIPS "
      "2016; Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You "
      "Expect, 2024"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    const c10::NoGradGuard no_grad;
    const double full = limited_by(options.budget.kind, model);
    const double target = options.budget.amount * (options.budget.is_share() ? full : 1);
    Blocks blocks_of_model(model, options.keep);
    require_reachable(model, blocks_of_model, options, full, target);
    const std::vector<at::Tensor> wanted = outputs(model, context.calibration());
    int64_t removed = 0;
    double now = full;
    std::vector<std::string> order;  // the least first
    while (now > target) {
      const std::vector<ResidualBlock> blocks = blocks_of_model.left(model);
      if (options.criterion == BlockCriterion::kOutput) {
        order = ordered(blocks, output_scores(model, blocks, wanted, context));
      } else if (removed == 0) {  // judged once
        order = ordered(blocks, change_scores(model, blocks, context));
      }
      const ResidualBlock* least = first_left(order, blocks);
      if (!context.begin(least->name)) break;
      context.message(fmt::format("{} is left out", least->name));
      blocks_of_model.skip(model, *least);
      ++removed;
      now = limited_by(options.budget.kind, model);
    }
    context.count("blocks_removed", removed);
    context.measure("cost_kept", now / full);
    // The last digits depend on the number of threads.
    const double error = relative_difference(outputs(model, context.calibration()), wanted);
    context.measure("output_error", std::round(error * 1e4) / 1e4);
    return removed > 0 ? Change::kSome : Change::kNone;
  }

 private:
  // The first of `order` that is there: with a block go those inside of it.
  static const ResidualBlock* first_left(const std::vector<std::string>& order,
                                         const std::vector<ResidualBlock>& blocks) {
    for (const std::string& name : order) {
      for (const ResidualBlock& block : blocks) {
        if (block.sum->output()->name() == name) return &block;
      }
    }
    COMPRESS_CHECK(false, "a reachable budget leaves a block to remove");
  }

  static std::vector<std::string> ordered(const std::vector<ResidualBlock>& blocks,
                                          const std::vector<double>& scores) {
    std::vector<std::pair<double, std::string>> pairs;
    for (size_t i = 0; i < blocks.size(); ++i) {
      pairs.emplace_back(scores[i], blocks[i].sum->output()->name());
    }
    std::stable_sort(pairs.begin(), pairs.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<std::string> names;
    for (const auto& [score, name] : pairs) names.push_back(name);
    return names;
  }

  // Before anything is changed.
  static void require_reachable(const Model& model, Blocks blocks, const Options& options,
                                double full, double target) {
    Model bare = model.clone(false);
    const size_t count = blocks.left(bare).size();
    if (count == 0) {
      throw Error(
          ErrorCode::kInvalidArgument, "the model has no residual block that can be left out",
          options.keep.empty() ? "" : "keep", "a block is what a skip connection leads around");
    }
    for (auto left = blocks.left(bare); !left.empty(); left = blocks.left(bare)) {
      blocks.skip(bare, left.back());
    }
    const double least = limited_by(options.budget.kind, bare);
    if (least <= target) return;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the budget cannot be reached: without all {} blocks that can be left "
                            "out, {:.4f} of the cost is left",
                            count, least / full),
                "budget", "ask for that much, or remove channels, too");
  }
};

COMPRESS_PASS(PruneLayers)

}  // namespace compress
