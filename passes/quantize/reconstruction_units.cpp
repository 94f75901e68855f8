// Liveness over the straight line of the graph.

#include "passes/quantize/reconstruction_units.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

// What belongs to the layer in front of it: activation functions, and batch norm.
bool finishes_a_layer(const Node& node) {
  static constexpr std::array<std::string_view, 15> kOps = {
      "aten::relu",  "aten::relu6", "aten::hardtanh",  "aten::leaky_relu",  "aten::silu",
      "aten::gelu",  "aten::mish",  "aten::elu",       "aten::sigmoid",     "aten::tanh",
      "aten::clamp", "aten::prelu", "aten::hardswish", "aten::hardsigmoid", "aten::batch_norm"};
  return std::find(kOps.begin(), kOps.end(), node.op()) != kOps.end();
}

// The nodes that depend on inputs of the graph, in order, and for how long tensors are alive.
class Liveness {
 public:
  explicit Liveness(const Graph& graph) {
    for (const Value* input : graph.inputs()) depends_.insert(input);
    for (const Node& node : graph.nodes()) {
      bool depends = false;
      for (const Argument& argument : node.arguments()) {
        argument.each_value([&](const Value* used) { depends |= depends_.contains(used); });
      }
      if (!depends) continue;
      const size_t index = nodes_.size();
      nodes_.push_back(&node);
      depends_.insert(node.outputs().begin(), node.outputs().end());
      for (const Argument& argument : node.arguments()) {
        argument.each_value([&](const Value* used) { use(used, index); });
      }
    }
    for (const Output& output : graph.outputs()) {
      output.value.each_value([&](const Value* used) { use(used, nodes_.size()); });
    }
  }

  const std::vector<const Node*>& nodes() const { return nodes_; }

  /// The only tensor that is alive behind each node, or null.
  std::vector<const Value*> cuts() const {
    std::vector<const Value*> cuts(nodes_.size(), nullptr);
    std::vector<const Value*> alive;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      for (const Value* output : nodes_[i]->outputs()) alive.push_back(output);
      std::erase_if(alive, [&](const Value* value) {
        const auto last = last_use_.find(value);
        return last == last_use_.end() || last->second <= i;
      });
      if (alive.size() == 1) cuts[i] = alive.front();
    }
    return cuts;
  }

 private:
  // A size is computed anew behind a cut, so what it is the size of must be alive.
  void use(const Value* value, size_t index) {
    if (!depends_.contains(value) || value->is_input()) return;
    if (value->kind() == ValueKind::kTensor) {
      last_use_[value] = index;
      return;
    }
    for (const Argument& argument : value->producer()->arguments()) {
      argument.each_value([&](const Value* used) { use(used, index); });
    }
  }

  std::vector<const Node*> nodes_;
  std::unordered_set<const Value*> depends_;
  std::unordered_map<const Value*, size_t> last_use_;
};

// "layer1.0" of "layer1.0.conv1" and "layer1.0.conv2".
std::string common_path(std::string a, const std::string& b) {
  while (!a.empty() && a != b && !b.starts_with(a + ".")) {
    const size_t dot = a.rfind('.');
    a.resize(dot == std::string::npos ? 0 : dot);
  }
  return a;
}

class UnitFinder {
 public:
  UnitFinder(const Model& model, const std::vector<Weight>& selected)
      : selected_(selected), live_(model.graph()), uses_(model.graph()) {
    for (size_t i = 0; i < selected.size(); ++i) weight_of_[selected[i].layer()] = i;
    for (const Weight& weight : weights(model)) {
      for (const WeightUse& use : weight.uses()) layers_.insert(use.layer);
    }
    for (size_t i = 0; i < live_.nodes().size(); ++i) place_of_[live_.nodes()[i]] = i;
  }

  std::vector<ReconstructionUnit> run(UnitKind kind) {
    if (kind == UnitKind::kBlock) find_blocks();
    for (size_t i = 0; i < selected_.size(); ++i) {
      if (!covered_.contains(i)) add_layer(i);
    }
    std::sort(units_.begin(), units_.end(), [&](const auto& a, const auto& b) {
      return place_of_.at(a.first) < place_of_.at(b.first);
    });
    return std::move(units_);
  }

 private:
  void add_layer(size_t index) {
    const Weight& weight = selected_[index];
    ReconstructionUnit unit;
    unit.name = weight.module_path().empty() ? weight.name() : weight.module_path();
    unit.weights = {index};
    unit.first = weight.layer();
    unit.output = weight.layer()->output();
    for (const Argument& argument : weight.layer()->arguments()) {
      argument.each_value([&](const Value* used) {
        if (used->is_input() || place_of_.contains(used->producer())) add_once(unit.inputs, used);
      });
    }
    while (true) {
      const std::vector<Use>& uses = uses_.of(unit.output);
      if (uses.size() != 1 || uses[0].node == nullptr) break;
      if (!finishes_a_layer(*uses[0].node)) break;
      unit.output = uses[0].node->output();
    }
    units_.push_back(std::move(unit));
  }

  // Stretches of nodes from one cut to the next; those with a layer begin a block.
  void find_blocks() {
    const std::vector<const Value*> cuts = live_.cuts();
    const Value* entry = nullptr;  // the cut in front of the stretch
    size_t begin = 0;              // its first node
    std::optional<Block> open;     // the block that may still take activation functions
    for (size_t i = 0; i < cuts.size(); ++i) {
      if (cuts[i] == nullptr) continue;
      const bool single = uses_layer(begin, i) == Layers::kNone;
      if (single && open && i == begin && finishes_a_layer(*live_.nodes()[i])) {
        open->output = cuts[i];
        entry = cuts[i];
        begin = i + 1;
        continue;
      }
      if (single) continue;  // goes with the stretch behind it
      close(open);
      open = Block{begin, i, entry, cuts[i]};
      entry = cuts[i];
      begin = i + 1;
    }
    close(open);
  }

  struct Block {
    size_t first, last;
    const Value* entry;
    const Value* output;
  };
  enum class Layers { kNone, kSome };

  Layers uses_layer(size_t first, size_t last) const {
    for (size_t i = first; i <= last; ++i) {
      if (layers_.contains(live_.nodes()[i])) return Layers::kSome;
    }
    return Layers::kNone;
  }

  static void add_once(std::vector<const Value*>& values, const Value* value) {
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
  }

  // The cut in front of the block, and the inputs of the model that it uses.
  std::vector<const Value*> inputs_of(const Block& block) const {
    std::vector<const Value*> inputs;
    if (block.entry != nullptr) inputs.push_back(block.entry);
    for (size_t i = block.first; i <= block.last; ++i) {
      for (const Argument& argument : live_.nodes()[i]->arguments()) {
        argument.each_value([&](const Value* used) {
          if (used->is_input()) add_once(inputs, used);
        });
      }
    }
    return inputs;
  }

  void close(std::optional<Block>& block) {
    if (!block) return;
    ReconstructionUnit unit;
    std::optional<std::string> path;
    for (size_t i = block->first; i <= block->last; ++i) {
      const auto weight = weight_of_.find(live_.nodes()[i]);
      if (weight == weight_of_.end()) continue;
      unit.weights.push_back(weight->second);
      const std::string own = selected_[weight->second].module_path();
      path = path ? common_path(*path, own) : own;
    }
    if (!unit.weights.empty()) {
      unit.name = path->empty() ? selected_[unit.weights.front()].name() : *path;
      unit.first = live_.nodes()[block->first];
      unit.output = block->output;
      unit.inputs = inputs_of(*block);
      covered_.insert(unit.weights.begin(), unit.weights.end());
      units_.push_back(std::move(unit));
    }
    block.reset();
  }

  const std::vector<Weight>& selected_;
  Liveness live_;
  UseMap uses_;
  std::unordered_map<const Node*, size_t> weight_of_, place_of_;
  std::unordered_set<const Node*> layers_;
  std::unordered_set<size_t> covered_;
  std::vector<ReconstructionUnit> units_;
};

}  // namespace

std::vector<ReconstructionUnit> reconstruction_units(const Model& model,
                                                     const std::vector<Weight>& selected,
                                                     UnitKind kind) {
  return UnitFinder(model, selected).run(kind);
}

int64_t channel_dim_of(const ReconstructionUnit& unit, const std::vector<Weight>& selected) {
  return selected[unit.weights.back()].kind() == OperatorKind::kConv ? 1 : -1;
}

}  // namespace compress
