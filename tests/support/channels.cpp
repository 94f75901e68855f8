// The law of coupled channels.

#include "tests/support/channels.h"

#include "compress/budget/channel_cost.h"
#include "compress/budget/cost.h"
#include "compress/graph/compact.h"
#include "compress/graph/compact_literals.h"
#include "compress/graph/interpreter.h"
#include "compress/graph/schema.h"
#include "compress/graph/shapes.h"
#include "compress/graph/verify.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace compress::testing {
namespace {

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

// Tensors that batch norms take for variances.
std::unordered_set<std::string> variances(const Model& model) {
  std::unordered_set<std::string> names;
  for (const Node& node : model.graph().nodes()) {
    if (!node.has_argument("running_var")) continue;
    if (const Value* value = node.argument("running_var").value()) names.insert(value->name());
  }
  return names;
}

at::Tensor without_indices(at::Tensor tensor, const ChannelGroups& groups, const ChannelSet& set,
                           const Value* value) {
  for (int64_t d = 0; d < groups.rank(value); ++d) {
    if (!groups.is_cut(set, value, d)) continue;
    const std::vector<ChannelClass>& classes = groups.classes(value, d);
    std::vector<int64_t> gone;
    for (size_t i = 0; i < classes.size(); ++i) {
      if (set.gone[classes[i]]) gone.push_back(static_cast<int64_t>(i));
    }
    tensor.index_fill_(d, at::tensor(gone, at::kLong), 0);
  }
  return tensor;
}

// Values that are computed from named tensors alone and read by something that is not.
std::vector<const Value*> computed_weights(const Graph& graph) {
  std::unordered_set<const Value*> constant(graph.named_tensors().begin(),
                                            graph.named_tensors().end());
  std::vector<const Value*> found;
  std::unordered_set<const Value*> seen;
  for (const Node& node : graph.nodes()) {
    bool all = true, any = false;
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) {
        any = true;
        all = all && constant.contains(value);
      });
    }
    if (all && any) {
      constant.insert(node.outputs().begin(), node.outputs().end());
      continue;
    }
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) {
        if (!constant.contains(value) || value->is_named_tensor()) return;
        if (seen.insert(value).second) found.push_back(value);
      });
    }
  }
  return found;
}

// Every value of a run has the sizes that were foretold.
void check_sizes(const Model& smaller, const std::vector<at::Tensor>& inputs,
                 const std::unordered_map<std::string, std::vector<int64_t>>& foretold) {
  smaller.interpreter().run(inputs, [&](const Value& value, const c10::IValue& content) {
    const auto expected = foretold.find(value.name());
    if (expected == foretold.end() || !content.isTensor()) return;
    EXPECT_EQ(content.toTensor().sizes().vec(), expected->second) << value.name();
  });
}

std::unordered_map<std::string, std::vector<int64_t>> foretell(const Graph& graph,
                                                               const ChannelGroups& groups,
                                                               const ChannelSet& set) {
  std::unordered_map<std::string, std::vector<int64_t>> sizes;
  for (const Node& node : graph.nodes()) {
    for (const Value* value : node.outputs()) {
      if (value->kind() != ValueKind::kTensor || groups.rank(value) == 0) continue;
      for (int64_t d = 0; d < groups.rank(value); ++d) {
        sizes[value->name()].push_back(groups.left(set, value, d));
      }
    }
  }
  return sizes;
}

// Lets a node see the channels that stay: gathers its operands, scatters its results among zeros.
class Survivors {
 public:
  Survivors(Model& model, const ChannelGroups& groups, const ChannelSet& set)
      : model_(model), groups_(groups), set_(set) {}

  // `node` already has the literals for the channels that stay.
  void wrap(Node& node) {
    for (size_t i = 0; i < node.arguments().size(); ++i) {
      Argument argument = node.arguments()[i];
      argument.map_values([&](Value* value) { return gathered(value, node); });
      model_.graph().set_argument(&node, i, std::move(argument));
    }
    Node* next = nullptr;
    for (auto it = model_.graph().nodes().begin(); it != model_.graph().nodes().end(); ++it) {
      if (&*it == &node && std::next(it) != model_.graph().nodes().end()) next = &*std::next(it);
    }
    for (Value* output : node.outputs()) scatter(output, next);
  }

 private:
  Value* constant(const std::vector<int64_t>& indices) {
    return model_.add_tensor("survivors." + std::to_string(model_.tensors().size()),
                             at::tensor(indices, at::kLong), TensorRole::kConstant);
  }

  Value* gathered(Value* value, Node& before) {
    const auto known = scattered_.find(value);
    const Value* original = known == scattered_.end() ? value : known->second;
    for (int64_t d = 0; d < groups_.rank(original); ++d) {
      if (!groups_.is_cut(set_, original, d)) continue;
      value =
          model_.graph()
              .insert(&before, {.op = "aten::index_select",
                                .arguments = {value, d, constant(groups_.kept(set_, original, d))}})
              ->output();
    }
    return value;
  }

  void scatter(Value* output, Node* before) {
    Value* value = output;
    Node* first = nullptr;
    for (int64_t d = 0; d < groups_.rank(output); ++d) {
      if (!groups_.is_cut(set_, output, d)) continue;
      std::vector<int64_t> pad(2 * (groups_.rank(output) - d), 0);
      pad.back() = 1;  // one more index, of zeros
      std::vector<int64_t> rows;
      const int64_t left = groups_.left(set_, output, d);
      int64_t next = 0;
      for (const ChannelClass channel : groups_.classes(output, d)) {
        rows.push_back(set_.gone[channel] ? left : next++);
      }
      Node* padded = model_.graph().insert(
          before, {.op = "aten::constant_pad_nd", .arguments = {value, pad, 0.0}});
      if (first == nullptr) first = padded;
      value = model_.graph()
                  .insert(before, {.op = "aten::index_select",
                                   .arguments = {padded->output(), d, constant(rows)}})
                  ->output();
    }
    if (first == nullptr) return;
    model_.graph().replace_uses(output, value, first);
    scattered_[value] = output;
  }

  Model& model_;
  const ChannelGroups& groups_;
  const ChannelSet& set_;
  std::unordered_map<const Value*, const Value*> scattered_;  // the value that it stands for
};

// What a smaller model has to compute. Analysing a copy gives the same numbers to its channels.
Model reference_of(const Model& model, const ChannelGroups& groups, const ChannelSet& set,
                   bool inexact) {
  if (!inexact) return zeroed(model, groups, set);
  Model copy = model.clone();
  const ChannelGroups same = analyse(copy);
  EXPECT_EQ(same.none().gone.size(), set.gone.size());
  return zeroed_with_survivors(std::move(copy), same, set);
}

// Whether one symbol stands in front of all inputs.
bool has_free_batch(const Model& model) {
  const std::vector<Value*>& inputs = model.graph().inputs();
  return !inputs.empty() && std::all_of(inputs.begin(), inputs.end(), [&](const Value* input) {
    const auto &sizes = input->type.sizes, &first = inputs.front()->type.sizes;
    return sizes && !sizes->empty() && sizes->front().is_symbolic() && first && !first->empty() &&
           sizes->front() == first->front();
  });
}

}  // namespace

void randomise_constants(Model& model, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::NoGradGuard no_grad;
  for (NamedTensor& tensor : model.mutable_tensors()) {
    if (tensor.role == TensorRole::kConstant || !tensor.tensor.is_floating_point()) continue;
    if (tensor.tensor.numel() < 2) continue;
    const at::Tensor first = tensor.tensor.flatten()[0];
    if (!tensor.tensor.eq(first).all().item<bool>()) continue;
    // Layer scales are tiny; with them the branch behind would hardly be seen.
    const at::Tensor base = first.abs().item<double>() < 0.01 ? at::zeros_like(first) : first;
    const at::Tensor noise = at::randn(tensor.tensor.sizes(), generator, at::kFloat) * 0.1;
    model.set_tensor(tensor.name, (base + noise).to(tensor.tensor.scalar_type()));
  }
}

std::vector<at::Tensor> random_inputs(const Model& model, int64_t batch, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  std::vector<at::Tensor> inputs = example_inputs(model, batch);
  for (at::Tensor& input : inputs) {
    if (input.is_floating_point()) {
      input = at::randn(input.sizes(), generator, at::kFloat).to(input.scalar_type());
    } else if (input.scalar_type() != at::kBool) {
      input = at::randint(2, input.sizes(), generator, at::kLong).to(input.scalar_type());
    }
  }
  return inputs;
}

ChannelSet choose_channels(const ChannelGroups& groups, double share, bool inexact, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  ChannelSet set = groups.none();
  for (const ChannelGroup& group : groups.groups()) {
    if (!group.exact() && !inexact) continue;
    const auto count = static_cast<int64_t>(group.units.size());
    const at::Tensor order = at::randperm(count, generator);
    const auto wanted =
        std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(count)));
    for (int64_t i = 0; i < wanted; ++i) groups.add(set, group.units[order[i].item<int64_t>()]);
  }
  return set;
}

Model zeroed(const Model& model, const ChannelGroups& groups, const ChannelSet& set) {
  const at::NoGradGuard no_grad;
  Model copy = model.clone();
  const std::unordered_set<std::string> kept = variances(model);
  for (const Value* value : model.graph().named_tensors()) {
    const at::Tensor& tensor = model.tensor(value->name());
    if (!tensor.is_floating_point() || kept.contains(value->name())) continue;
    if (!groups.is_cut(set, value)) continue;
    copy.set_tensor(value->name(), without_indices(tensor.detach().clone(), groups, set, value));
  }
  std::vector<std::pair<const Value*, at::Tensor>> masks;
  for (const Value* value : computed_weights(model.graph())) {
    if (!groups.is_cut(set, value) || !value->type.sizes) continue;
    if (!value->type.dtype || !c10::isFloatingType(*value->type.dtype)) continue;
    std::vector<int64_t> sizes;
    for (const Dim& dim : *value->type.sizes) sizes.push_back(dim.size);
    masks.emplace_back(value, without_indices(at::ones(sizes), groups, set, value));
  }
  for (const auto& [value, mask] : masks) {
    Value* twin = copy.graph().find(value->name());
    Node* next = nullptr;
    for (auto it = copy.graph().nodes().begin(); it != copy.graph().nodes().end(); ++it) {
      if (&*it == twin->producer() && std::next(it) != copy.graph().nodes().end())
        next = &*std::next(it);
    }
    Value* tensor = copy.add_tensor(value->name() + ".zeroed", mask, TensorRole::kBuffer);
    Node* product =
        copy.graph().insert(next, {.op = "aten::mul.Tensor", .arguments = {twin, tensor}});
    copy.graph().replace_uses(twin, product->output(), product);
  }
  return copy;
}

Model zeroed_with_survivors(Model model, const ChannelGroups& groups, const ChannelSet& set) {
  static const std::set<std::string> kinds = {"layer_norm",
                                              "rms_norm",
                                              "group_norm",
                                              "batch_norm",
                                              "instance_norm",
                                              "mean",
                                              "var",
                                              "std",
                                              "var_mean",
                                              "std_mean",
                                              "sum",
                                              "matmul",
                                              "bmm",
                                              "einsum",
                                              "linalg_vector_norm",
                                              "baddbmm",
                                              "scaled_dot_product_attention"};
  const at::NoGradGuard no_grad;
  std::vector<Node*> nodes;
  for (Node& node : model.graph().nodes()) {
    if (kinds.contains(base_name(node.op()))) nodes.push_back(&node);
  }
  const std::unordered_set<std::string> kept = variances(model);
  for (const Value* value : model.graph().named_tensors()) {
    const at::Tensor& tensor = model.tensor(value->name());
    if (!tensor.is_floating_point() || kept.contains(value->name())) continue;
    if (!groups.is_cut(set, value)) continue;
    model.set_tensor(value->name(), without_indices(tensor.detach().clone(), groups, set, value));
  }
  for (Node* node : nodes) move_literals(model, *node, groups, set);
  Survivors survivors(model, groups, set);
  for (Node* node : nodes) survivors.wrap(*node);
  return model;
}

double difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double worst = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    if (a[i].sizes() != b[i].sizes()) return std::numeric_limits<double>::infinity();
    if (a[i].numel() == 0) continue;
    const at::Tensor x = a[i].to(at::kDouble), y = b[i].to(at::kDouble);
    const double scale = std::max(y.abs().max().item<double>(), 1e-30);
    const double far = (x - y).abs().max().item<double>() / scale;
    worst = std::isnan(far) ? std::numeric_limits<double>::infinity() : std::max(worst, far);
  }
  return worst;
}

LawReport check_channel_law(Model model, const LawOptions& options) {
  const at::NoGradGuard no_grad;
  const uint64_t seed = options.seed;
  randomise_constants(model, seed);
  LawReport report;
  const auto analysis = std::chrono::steady_clock::now();
  const ChannelGroups groups = analyse(model);
  report.analysis_ms = milliseconds_since(analysis);
  report.groups = groups.groups().size();
  for (const ChannelGroup& group : groups.groups()) {
    report.exact_groups += group.exact();
    report.units += group.units.size();
  }
  const ChannelSet set = choose_channels(groups, options.share, options.inexact, seed);
  if (set.empty()) return report;
  const size_t problems_before = problems(model).size();
  const auto foretold = foretell(model.graph(), groups, set);
  const ChannelCost cost = cost_without(model, groups, set);
  const int64_t all_before = measure_cost(model).parameters;
  const ChannelCost whole = cost_without(model, groups, groups.none());
  const Model masked = reference_of(model, groups, set, options.inexact);
  const std::vector<at::Tensor> inputs = random_inputs(model, 2, seed);
  const std::vector<at::Tensor> expected = masked.clone().forward(inputs);
  report.moved = difference(expected, model.clone().forward(inputs));

  const auto removal = std::chrono::steady_clock::now();
  remove(model, groups, set);
  report.removal_ms = milliseconds_since(removal);
  const std::vector<std::string> found = problems(model);
  EXPECT_EQ(found.size(), problems_before) << (found.empty() ? "" : found.front());
  check_sizes(model.clone(), inputs, foretold);
  report.error = difference(model.clone().forward(inputs), expected);
  const ModelCost measured = measure_cost(model);
  // A weight that is computed (standardised) counts once there, with all its sources here.
  if (all_before == whole.parameters) {
    EXPECT_EQ(measured.parameters, cost.parameters);
  }
  if (measured.macs && cost.macs && *cost.macs > 0) {
    EXPECT_NEAR(*measured.macs / *cost.macs, 1, 1e-9);
  }
  report.kept_parameters =
      static_cast<double>(cost.parameters) / static_cast<double>(whole.parameters);
  // The survivors' indices are those of batch 2 where heads hide in the batch.
  if (!options.inexact && has_free_batch(model)) {
    const std::vector<at::Tensor> others = random_inputs(model, 3, seed + 1);
    const double error = difference(model.clone().forward(others), masked.clone().forward(others));
    report.error = std::max(report.error, error);
  }
  EXPECT_LE(report.error, options.tolerance);
  return report;
}

}  // namespace compress::testing
