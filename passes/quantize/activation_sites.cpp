// Where in a graph the quantizers of activations stand.

#include "passes/quantize/activation_sites.h"

#include "compress/graph/schema.h"
#include "compress/selector.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

namespace compress {
namespace {

bool pads_with_zeros(const Node& node) {
  if (node.has_argument("mode") && node.argument("mode") != Argument("constant")) return false;
  const Argument& value = node.argument("value");
  return value.is_none() || value == Argument(0.0) || value == Argument(0);
}

// Whether what is left may have a smaller range than the whole (the first token of a sequence).
bool drops_elements(const Node& node) {
  return is_one_of(base_op(node), {"aten::slice", "aten::select"});
}

// Whether every element of the output is one of the first argument's, or 0.
bool keeps_the_grid(const Node& node) {
  const std::string_view op = base_op(node);
  if (op == "aten::pad" || op == "aten::constant_pad_nd") return pads_with_zeros(node);
  if (op == "aten::dropout") return node.argument("train") == Argument(false);
  return drops_elements(node) ||
         is_one_of(op,
                   {"aten::view", "aten::reshape", "aten::flatten", "aten::permute",
                    "aten::transpose", "aten::squeeze", "aten::unsqueeze", "aten::contiguous",
                    "aten::clone", "aten::max_pool1d", "aten::max_pool2d", "aten::max_pool3d",
                    "aten::adaptive_max_pool2d", "aten::channel_shuffle", "aten::pixel_shuffle"});
}

bool is_fake_quantize(const Node* node) {
  return node != nullptr && base_op(*node).starts_with("aten::fake_quantize_per_tensor_affine");
}

bool is_floating(const Value& value) {
  return value.kind() == ValueKind::kTensor &&
         (!value.type.dtype || c10::isFloatingType(*value.type.dtype));
}

// A value with more than a number in it that depends on the input.
bool is_activation(const Value* value) {
  return value != nullptr && !value->is_named_tensor() && is_floating(*value);
}

bool is_relu(const Node& node) {
  return is_one_of(base_op(node), {"aten::relu", "aten::relu6", "aten::hardtanh", "aten::clamp",
                                   "aten::clamp_min"});
}

// Whether it is the output, maybe normalised, of a convolution among `layers`, read once.
bool comes_from_convolution(const Value* value, const std::vector<const Node*>& layers,
                            const UseMap& uses) {
  const Node* node = value->producer();
  while (node != nullptr && (base_op(*node) == "aten::batch_norm" || is_fake_quantize(node))) {
    value = node->arguments()[0].value();
    node = value->producer();
  }
  return node != nullptr && operator_kind(*node) == OperatorKind::kConv &&
         uses.of(value).size() == 1 &&
         std::find(layers.begin(), layers.end(), node) != layers.end();
}

using Place = std::pair<const Node*, size_t>;

// Finds the quantizers for a set of reads.
class SiteFinder {
 public:
  SiteFinder(const Graph& graph, const std::vector<ActivationRead>& reads)
      : graph_(graph), uses_(graph) {
    for (const ActivationRead& read : reads) wanted_.try_emplace({read.node, read.argument}, read);
  }

  // Moves reads in front of operators that keep the grid, the last operators first.
  void move_to_the_front() {
    for (auto node = graph_.nodes().rbegin(); node != graph_.nodes().rend(); ++node) {
      if (node->outputs().empty() || !keeps_the_grid(*node)) continue;
      if (!is_activation(node->arguments()[0].value())) continue;
      const std::vector<Use>& readers = uses_.of(node->output());
      const ActivationRead* first = readers.empty() ? nullptr : want(readers.front());
      if (first == nullptr || !all_want(readers, first->bits)) continue;
      if (drops_elements(*node) && !is_wanted_whole(*node, first->bits)) continue;
      auto* mover = const_cast<Node*>(&*node);  // the graph is the caller's to edit
      wanted_[{mover, 0}] = {mover, 0, first->bits, first->module_path};
      for (const Use& use : readers) wanted_.erase({use.node, use.index});
    }
  }

  std::vector<ActivationSite> sites() const {
    std::vector<ActivationSite> found;
    std::map<std::pair<const Value*, int>, size_t> known;
    for (const Node& node : graph_.nodes()) {
      if (is_fake_quantize(&node)) continue;
      for (size_t i = 0; i < node.arguments().size(); ++i) {
        const auto read = wanted_.find({&node, i});
        Value* value = node.arguments()[i].value();
        if (read == wanted_.end() || !is_activation(value)) continue;
        if (is_fake_quantize(value->producer())) continue;
        const int bits = read->second.bits;
        const auto [position, is_new] = known.try_emplace({value, bits}, found.size());
        if (is_new) found.push_back({value, bits, {}});
        found[position->second].reads.push_back(read->second);
      }
    }
    return found;
  }

 private:
  const ActivationRead* want(const Use& use) const {
    const auto found = wanted_.find({use.node, use.index});
    return found == wanted_.end() ? nullptr : &found->second;
  }

  bool all_want(const std::vector<Use>& readers, int bits) const {
    return std::all_of(readers.begin(), readers.end(), [&](const Use& use) {
      return want(use) != nullptr && want(use)->bits == bits;
    });
  }

  // Whether someone reads, at that width, the whole of which the node leaves a part.
  bool is_wanted_whole(const Node& part, int bits) const {
    const Node* node = &part;
    while (true) {
      const Value* whole = node->arguments()[0].value();
      const std::vector<Use>& readers = uses_.of(whole);
      for (const Use& use : readers) {
        if (use.node != node && want(use) != nullptr && want(use)->bits == bits) return true;
      }
      node = whole->producer();
      if (node == nullptr || readers.size() != 1 || !keeps_the_grid(*node)) return false;
    }
  }

  const Graph& graph_;
  UseMap uses_;
  std::map<Place, ActivationRead> wanted_;
};

}  // namespace

Value* activation_of(const WeightUse& use, size_t* argument) {
  if (use.layer == nullptr) return nullptr;
  const OperatorKind kind = operator_kind(*use.layer);
  size_t index = 0;
  if (kind == OperatorKind::kLinear) {
    const std::string_view op = base_op(*use.layer);
    if (op == "aten::addmm" || op == "aten::baddbmm") {
      index = 3 - use.argument;
    } else if (op != "aten::linear") {
      index = 1 - use.argument;
    }
  } else if (kind != OperatorKind::kConv) {
    return nullptr;
  }
  if (argument != nullptr) *argument = index;
  Value* value = use.layer->arguments().at(index).value();
  return is_activation(value) ? value : nullptr;
}

std::vector<ActivationRead> layer_reads(const Weight& weight, int bits) {
  std::vector<ActivationRead> reads;
  for (const WeightUse& use : weight.uses()) {
    size_t argument = 0;
    if (activation_of(use, &argument) == nullptr) continue;
    reads.push_back({use.layer, argument, bits, use.layer->module_path});
  }
  return reads;
}

std::vector<ActivationRead> residual_reads(const Graph& graph,
                                           const std::vector<const Node*>& layers, int bits,
                                           AddOperands operands) {
  const UseMap uses(graph);
  std::vector<ActivationRead> reads;
  for (const Node& node : graph.nodes()) {
    if (node.op() != "aten::add.Tensor") continue;
    const Value *left = node.arguments()[0].value(), *right = node.arguments()[1].value();
    if (!is_activation(left) || !is_activation(right)) continue;
    const bool left_conv = comes_from_convolution(left, layers, uses);
    if (!left_conv && !comes_from_convolution(right, layers, uses)) continue;
    auto* add = const_cast<Node*>(&node);  // the graph is the caller's to edit
    const size_t accumulator = left_conv ? 0 : 1;
    for (const size_t argument : {size_t{0}, size_t{1}}) {
      if (operands == AddOperands::kShortcut && argument == accumulator) continue;
      reads.push_back({add, argument, bits, node.module_path});
    }
    const Value* result = node.output();
    const std::vector<Use>* result_uses = &uses.of(result);
    if (result_uses->size() == 1 && result_uses->front().node != nullptr &&
        is_relu(*result_uses->front().node)) {
      result_uses = &uses.of(result_uses->front().node->output());
    }
    for (const Use& use : *result_uses) {
      if (use.node != nullptr) reads.push_back({use.node, use.index, bits, use.node->module_path});
    }
  }
  return reads;
}

std::vector<ActivationSite> activation_sites(const Graph& graph,
                                             const std::vector<ActivationRead>& reads) {
  SiteFinder finder(graph, reads);
  finder.move_to_the_front();
  return finder.sites();
}

void redirect(Graph& graph, const ActivationSite& site, Value* with) {
  for (const ActivationRead& read : site.reads) graph.set_argument(read.node, read.argument, with);
}

Value* fake_quantize(Graph& graph, Node* before, Value* value, const ActivationGrid& grid) {
  const Node* producer = value->producer();
  Node* node = graph.insert(before, {"aten::fake_quantize_per_tensor_affine",
                                     {value, grid.scale, grid.zero_point, grid.first, grid.last},
                                     {},
                                     value->name() + "_rounded",
                                     1,
                                     producer != nullptr ? producer->module_path : ""});
  node->output()->type = value->type;
  return node->output();
}

void fake_quantize(Graph& graph, const ActivationSite& site, const ActivationGrid& grid) {
  redirect(graph, site, fake_quantize(graph, site.reads.front().node, site.value, grid));
}

}  // namespace compress
