// Walks forward from every norm and layer to all that reads its output.

#include "passes/quantize/scale_groups.h"

#include "compress/calibrate/layer_input.h"
#include "compress/error.h"
#include "compress/graph/schema.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace compress {
namespace {

std::optional<std::vector<int64_t>> sizes_of(const Value* value) {
  if (value == nullptr || !value->type.sizes) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const Dim& dim : *value->type.sizes) sizes.push_back(dim.size);
  return sizes;
}

int64_t product_behind(const std::vector<int64_t>& sizes, size_t dim) {
  int64_t product = 1;
  for (size_t i = dim + 1; i < sizes.size(); ++i) product *= sizes[i];
  return product;
}

// Where the channels of dimension `dim` are after a view; none if it splits or joins them.
std::optional<int64_t> dim_after_view(const std::vector<int64_t>& before, int64_t dim,
                                      const std::vector<int64_t>& after) {
  const int64_t behind = product_behind(before, static_cast<size_t>(dim));
  for (size_t i = 0; i < after.size(); ++i) {
    if (after[i] == before[dim] && product_behind(after, i) == behind) {
      return static_cast<int64_t>(i);
    }
  }
  return std::nullopt;
}

// The channels' dimension of the output of an operator that treats channels alike and is
// homogeneous; none if the operator is another one.
std::optional<int64_t> dim_behind(const Node& node, const Value* input, int64_t dim) {
  const std::string_view op = node.op();
  const auto before = sizes_of(input), after = sizes_of(node.output());
  if (!before || !after) return std::nullopt;
  const auto wrap = [&](const Argument& argument) {
    const auto number = argument.as<int64_t>();
    return number < 0 ? number + static_cast<int64_t>(before->size()) : number;
  };
  if (is_one_of(op, {"aten::relu", "aten::leaky_relu", "aten::dropout", "aten::feature_dropout",
                     "aten::contiguous", "aten::clone", "aten::detach", "aten::alias"})) {
    return dim;
  }
  const auto spatial = static_cast<int64_t>(before->size()) - dim - 1;
  if (is_one_of(op, {"aten::max_pool2d", "aten::avg_pool2d", "aten::adaptive_avg_pool2d",
                     "aten::adaptive_max_pool2d"})) {
    return spatial == 2 ? std::optional(dim) : std::nullopt;
  }
  if (is_one_of(op, {"aten::max_pool1d", "aten::avg_pool1d", "aten::adaptive_avg_pool1d"})) {
    return spatial == 1 ? std::optional(dim) : std::nullopt;
  }
  if (is_one_of(op, {"aten::view", "aten::reshape", "aten::_unsafe_view", "aten::squeeze",
                     "aten::flatten.using_ints", "aten::squeeze.dim", "aten::squeeze.dims",
                     "aten::unsqueeze"})) {
    return dim_after_view(*before, dim, *after);
  }
  if (op == "aten::transpose.int") {
    const int64_t a = wrap(node.arguments()[1]), b = wrap(node.arguments()[2]);
    return dim == a ? b : dim == b ? a : dim;
  }
  if (op == "aten::permute" && node.arguments()[1].is_list()) {
    const Argument::List& order = node.arguments()[1].list();
    for (size_t i = 0; i < order.size(); ++i) {
      if (wrap(order[i]) == dim) return static_cast<int64_t>(i);
    }
  }
  if (op == "aten::mean.dim" && node.arguments()[1].is_list()) {
    int64_t before_channels = 0;
    for (const Argument& reduced : node.arguments()[1].list()) {
      if (wrap(reduced) == dim) return std::nullopt;
      before_channels += wrap(reduced) < dim ? 1 : 0;
    }
    return node.argument("keepdim").as<bool>() ? dim : dim - before_channels;
  }
  if (op == "aten::mul.Tensor" && before == after) {
    // By another activation of these sizes, as gated units do.
    const Value* a = node.arguments()[0].value();
    const Value* b = node.arguments()[1].value();
    const bool gated = a && b && a != b && sizes_of(a) == sizes_of(b) && !a->is_named_tensor() &&
                       !b->is_named_tensor();
    if (gated) return dim;
  }
  return std::nullopt;
}

class Finder {
 public:
  Finder(Model& model, std::vector<Weight>& selected) : model_(model), uses_(model.graph()) {
    for (Weight& weight : selected) {
      for (const WeightUse& use : weight.uses()) {
        if (use.layer) selected_.emplace(use.layer, &weight);
      }
    }
    for (Weight& weight : all_ = weights(model)) {
      for (const WeightUse& use : weight.uses()) {
        if (use.layer) producers_.emplace(use.layer, &weight);
      }
    }
  }

  std::vector<ScaleGroup> find() {
    std::vector<ScaleGroup> groups;
    for (Node& node : model_.graph().nodes()) {
      ScaleGroup group;
      const std::optional<int64_t> dim = start(node, group);
      if (!dim) continue;
      touched_ = {node.output()};
      std::string blocked = follow(node.output(), *dim, group);
      if (blocked.empty()) blocked = scaled_twice();
      std::erase_if(group.readers, [&](const ScaledReader& r) { return taken_.contains(r.layer); });
      if (group.readers.empty()) continue;
      if (group.obstacle.empty()) group.obstacle = blocked;
      for (const ScaledReader& reader : group.readers) taken_.insert(reader.layer);
      groups.push_back(std::move(group));
    }
    return groups;
  }

 private:
  // What divides the output of `node`: its tensors, or why they cannot. Returns the channels'
  // dimension of the output; none if the node is neither a norm nor a layer.
  std::optional<int64_t> start(const Node& node, ScaleGroup& group) {
    const std::string_view op = node.op();
    const auto sizes = node.outputs().empty() ? std::nullopt : sizes_of(node.output());
    if (!sizes || sizes->empty()) return std::nullopt;
    const auto rank = static_cast<int64_t>(sizes->size());
    int64_t dim = rank - 1;
    const auto layer = producers_.find(&node);
    if (layer != producers_.end()) {
      const Weight& weight = *layer->second;
      const bool conv = weight.kind() == OperatorKind::kConv;
      if (!conv && !is_matrix_layer(node, weight)) return std::nullopt;
      if (conv) dim = rank - static_cast<int64_t>(weight.sizes().size()) + 1;
      divide_layer(node, weight, group);
    } else if (is_one_of(op, {"aten::layer_norm", "aten::rms_norm", "aten::native_layer_norm"})) {
      if (node.argument("normalized_shape").list().size() != 1) return std::nullopt;
      divide_norm(node, group);
    } else if (is_one_of(op, {"aten::batch_norm", "aten::native_batch_norm",
                              "aten::_native_batch_norm_legit_no_training"})) {
      dim = 1;
      divide_norm(node, group);
    } else if (op == "aten::mul.Tensor") {
      // The last step of a norm that is written out.
      const Value* factor = node.arguments()[1].value();
      if (!factor || !factor->is_named_tensor()) factor = node.arguments()[0].value();
      if (!factor || !factor->is_named_tensor()) return std::nullopt;
      const at::Tensor vector = model_.tensor(factor->name());
      if (vector.dim() != 1 || vector.size(0) != sizes->back()) return std::nullopt;
      divide(factor, 0, group);
    } else {
      return std::nullopt;
    }
    if (dim < 0 || dim >= rank) return std::nullopt;
    group.channels = (*sizes)[dim];
    group.name = node.module_path.empty() ? node.output()->name() : node.module_path;
    for (const DividedTensor& divided : group.divided) {
      if (model_.tensor(divided.name).size(divided.dim) == group.channels) continue;
      group.obstacle =
          fmt::format("{} has no dimension of its {} channels", divided.name, group.channels);
    }
    return dim;
  }

  // A linear layer whose output channels are its last dimension.
  static bool is_matrix_layer(const Node& node, const Weight& weight) {
    const size_t argument = weight.uses()[0].argument;
    if (node.op() == "aten::addmm") return argument == 2;
    return is_one_of(node.op(), {"aten::linear", "aten::mm", "aten::matmul"}) && argument == 1 &&
           weight.sizes().size() == 2;
  }

  void divide(const Value* value, int64_t dim, ScaleGroup& group) {
    if (value == nullptr) return;
    const NamedTensor* named =
        value->is_named_tensor() ? model_.find_tensor(value->name()) : nullptr;
    if (named == nullptr || !named->tensor.defined() || !named->tensor.is_floating_point()) {
      group.obstacle = fmt::format("{} is computed", value->name());
    } else if (uses_.of(value).size() > 1) {
      group.obstacle = fmt::format("{} is used elsewhere, too", value->name());
    } else {
      group.divided.push_back({named->name, dim});
    }
  }

  void divide_norm(const Node& node, ScaleGroup& group) {
    const Value* weight = node.argument("weight").value();
    if (weight == nullptr) group.obstacle = "the norm has no weights";
    divide(weight, 0, group);
    if (node.has_argument("bias")) divide(node.argument("bias").value(), 0, group);
  }

  void divide_layer(const Node& node, const Weight& weight, ScaleGroup& group) {
    const Value* bias = nullptr;
    if (node.op() == "aten::addmm") {
      bias = node.arguments()[0].value();
    } else if (node.has_argument("bias")) {
      bias = node.argument("bias").value();
    }
    divide(bias, 0, group);
    if (weight.is_quantized()) {
      group.obstacle = fmt::format("{} is quantized", weight.name());
    } else if (weight.stored() == nullptr) {
      group.obstacle = fmt::format("{} is computed", weight.name());
    } else if (weight.uses().size() > 1) {
      group.obstacle = fmt::format("{} is used elsewhere, too", weight.name());
    } else {
      divide(model_.graph().find(weight.stored()->name), weight.output_dim(), group);
    }
  }

  // Adds all readers behind `value`; says what else reads it.
  std::string follow(Value* value, int64_t dim, ScaleGroup& group) {
    std::string blocked;
    for (const Use& use : uses_.of(value)) {
      if (use.node == nullptr) {
        blocked = "the model returns its output";
        continue;
      }
      const auto reader = selected_.find(use.node);
      if (reader != selected_.end() && layer_input(*use.node) == value) {
        const std::string odd = read(value, dim, *use.node, *reader->second, group);
        if (!odd.empty()) blocked = odd;
        continue;
      }
      if (use.node->op().starts_with("aten::sym_size")) continue;
      const std::optional<int64_t> next = dim_behind(*use.node, value, dim);
      if (next && use.node->outputs().size() == 1) {
        touched_.insert(use.node->output());
        const std::string behind = follow(use.node->output(), *next, group);
        if (!behind.empty()) blocked = behind;
      } else {
        blocked = fmt::format("{} reads its output, too", use.node->op());
      }
    }
    return blocked;
  }

  // Of a product of two values that both come from the group.
  std::string scaled_twice() const {
    for (const Value* value : touched_) {
      const Node* node = value->producer();
      if (node == nullptr || node->op() != "aten::mul.Tensor") continue;
      const Value* a = node->arguments()[0].value();
      const Value* b = node->arguments()[1].value();
      if (touched_.contains(a) && touched_.contains(b)) return "its output is multiplied by itself";
    }
    return "";
  }

  std::string read(Value* value, int64_t dim, const Node& layer, Weight& weight,
                   ScaleGroup& group) const {
    group.readers.push_back({&weight, &layer, value, dim});
    if (!has_layer_input_matrix(layer)) {
      return fmt::format("{} of {} cannot be scaled by its inputs", layer.op(), weight.name());
    }
    if (weight.is_quantized()) return fmt::format("{} is quantized", weight.name());
    if (weight.stored() == nullptr) return fmt::format("{} is computed", weight.name());
    const Value* stored = model_.graph().find(weight.stored()->name);
    if (weight.uses().size() > 1 || uses_.of(stored).size() > 1) {
      return fmt::format("{} is used elsewhere, too", weight.name());
    }
    if (weight.groups() > 1) return fmt::format("{} has groups of channels", weight.name());
    const auto rank = static_cast<int64_t>(value->type.sizes->size());
    const bool conv = weight.kind() == OperatorKind::kConv;
    const auto spatial = static_cast<int64_t>(conv ? weight.sizes().size() - 2 : 0);
    if (dim != rank - spatial - 1 || weight.sizes()[weight.input_dim()] != group.channels) {
      return fmt::format("{} does not read it channel by channel", weight.name());
    }
    return "";
  }

  Model& model_;
  UseMap uses_;
  std::vector<Weight> all_;
  std::unordered_map<const Node*, Weight*> selected_, producers_;
  std::unordered_set<const Node*> taken_;
  std::unordered_set<const Value*> touched_;
};

}  // namespace

std::vector<ScaleGroup> find_scale_groups(Model& model, std::vector<Weight>& selected) {
  return Finder(model, selected).find();
}

at::Tensor along(const at::Tensor& scales, int64_t dim, int64_t dims) {
  std::vector<int64_t> shape(dims, 1);
  shape[dim] = -1;
  return scales.view(shape);
}

void apply_scales(Model& model, const ScaleGroup& group, const at::Tensor& scales) {
  COMPRESS_CHECK(group.obstacle.empty() && scales.numel() == group.channels,
                 "a group that can be scaled, and its scales");
  const at::Tensor exact = scales.to(at::kDouble);
  for (const DividedTensor& divided : group.divided) {
    const at::Tensor before = model.tensor(divided.name).detach();
    const at::Tensor after = before.to(at::kDouble) / along(exact, divided.dim, before.dim());
    model.set_tensor(divided.name, after.to(before.scalar_type()));
  }
  for (const ScaledReader& reader : group.readers) {
    const at::Tensor before = model.tensor(reader.weight->stored()->name).detach();
    const at::Tensor factors = along(exact, reader.weight->input_dim(), before.dim());
    reader.weight->set_stored((before.to(at::kDouble) * factors).to(before.scalar_type()));
  }
}

}  // namespace compress
