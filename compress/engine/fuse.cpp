// What a layer takes along: batch norm, activations, the sum of a residual connection, quantizers.

#include "compress/engine/lowering.h"
#include "compress/io/mapped_file.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace compress::engine {
namespace {

bool is_batch_norm(const Node& node) {
  return node.op() == "aten::batch_norm" ||
         node.op() == "aten::_native_batch_norm_legit_no_training";
}

bool is_plain_add(const Node& node) {
  if (node.op() != "aten::add.Tensor") return false;
  const Argument& alpha = node.argument("alpha");
  return (alpha == Argument(1) || alpha == Argument(1.0)) && node.arguments()[0].is_value() &&
         node.arguments()[1].is_value();
}

// Whether f(c x) = c f(x) for c > 0, its bounds scaled alike.
bool scales_with_its_input(const PostOp& op) {
  return op.kind == PostOp::Kind::kRelu || op.kind == PostOp::Kind::kClip ||
         op.kind == PostOp::Kind::kSum;
}

bool all_scale(const std::vector<PostOp>& post) {
  return std::all_of(post.begin(), post.end(), [](const PostOp& op) {
    return scales_with_its_input(op) || op.kind == PostOp::Kind::kRound;
  });
}

const Value* other_operand(const Node& add, const Value* own) {
  const Value* first = add.arguments()[0].value();
  return first == own ? add.arguments()[1].value() : first;
}

// `post` in units of `unit`: what is accumulated there is worth so much.
void rescale(std::vector<PostOp>& post, double unit) {
  for (PostOp& op : post) {
    if (op.kind == PostOp::Kind::kSum) op.alpha /= unit;
    if (op.kind != PostOp::Kind::kClip) continue;
    op.alpha /= unit;
    op.beta /= unit;
  }
}

}  // namespace

Lowering::Chain Lowering::grow(const Node& layer, size_t source, bool integers,
                               bool channels_last) {
  Chain chain;
  chain.end = layer.output();
  chain.nodes = {&layer};
  chain.source = source;
  chain.integers = integers;
  chain.channels_last = channels_last;
  in_chain_.insert(&layer);
  sources_.push_back(source);  // a layer that is lowered meanwhile must not write there
  for (const Node* next = only_user(chain.end); next != nullptr && !chain.grid;
       next = only_user(chain.end)) {
    if (!take(*next, chain)) break;
    chain.end = next->output();
    chain.nodes.push_back(next);
    in_chain_.insert(next);
  }
  sources_.pop_back();
  return chain;
}

bool Lowering::take(const Node& next, Chain& chain) {
  if (is_batch_norm(next)) {
    const bool directly = chain.channels_last && chain.post.empty() && !chain.factor.defined() &&
                          has_constant_statistics(next);
    if (directly) take_batch_norm(next, chain);
    return directly;
  }
  if (const std::optional<PostOp> activation = activation_of(next)) {
    if (chain.rounded_unit > 0 && !scales_with_its_input(*activation)) return false;
    chain.post.push_back(*activation);
    return true;
  }
  if (is_plain_add(next)) return take_sum(next, chain);
  const std::optional<Grid> grid = arithmetic_.eight_bit ? grid_of(next) : std::nullopt;
  return grid && chain.integers && take_quantizer(next, *grid, chain);
}

// Whether the norm is a fixed scale and shift of each channel.
bool Lowering::has_constant_statistics(const Node& norm) const {
  if (norm.has_argument("training") && norm.argument("training") != Argument(false)) return false;
  for (const char* name : {"running_mean", "running_var", "weight", "bias"}) {
    const Argument& argument = norm.argument(name);
    const bool is_statistic = std::string_view(name).starts_with("running");
    if (argument.is_none() ? is_statistic : !is_constant(argument.value())) return false;
  }
  return true;
}

void Lowering::take_batch_norm(const Node& norm, Chain& chain) const {
  const at::Tensor variance = constant(norm.argument("running_var")).to(at::kDouble);
  const at::Tensor mean = constant(norm.argument("running_mean")).to(at::kDouble);
  const at::Tensor weight = constant(norm.argument("weight"));
  const at::Tensor bias = constant(norm.argument("bias"));
  chain.factor = (variance + norm.argument("eps").as<double>()).rsqrt();
  if (weight.defined()) chain.factor = chain.factor * weight;
  chain.shift = -mean * chain.factor;
  if (bias.defined()) chain.shift = chain.shift + bias;
}

// A quantizer in front of a sum that is fused rounds on the way; any other one ends the chain.
bool Lowering::take_quantizer(const Node& node, const Grid& grid, Chain& chain) {
  const Node* user = only_user(node.output());
  if (user != nullptr && is_plain_add(*user) && all_scale(chain.post)) {
    Chain until_here = chain;
    until_here.end = node.output();
    if (can_sum(*user, until_here)) {
      chain.post.push_back({PostOp::Kind::kClip, grid.lowest(), grid.highest()});
      chain.post.push_back({PostOp::Kind::kRound});
      chain.rounded_unit = grid.scale;
      return true;
    }
  }
  if (chain.float_output) return false;
  chain.grid = grid;
  return true;
}

bool Lowering::can_sum(const Node& add, const Chain& chain) {
  const Value* other = other_operand(add, chain.end);
  return !chain.sum && other != chain.end && is_float_tensor(other) &&
         sizes_of(other) == sizes_of(add.output()) &&
         sizes_of(chain.end) == sizes_of(add.output()) && make_available(other);
}

// The kernel adds to what the output's memory holds: the other operand's, or a copy of it.
bool Lowering::take_sum(const Node& add, Chain& chain) {
  if (!can_sum(add, chain)) return false;
  const Value* other = other_operand(add, chain.end);
  size_t slot = slot_of(other);
  const bool on_grid = program_.slots[slot].grid.has_value();
  if (chain.integers && on_grid && grid_behind(add.output())) {
    slot = in_order(slot, chain.channels_last);
  } else {
    slot = as_float(other, chain.channels_last);
    chain.float_output = true;
  }
  const Slot held = program_.slots[slot];
  if (is_awaited(slot) || !dies_at(slot, add)) {
    const size_t copy = new_slot(held.name, held.sizes, held.dtype, held.channels_last, held.grid);
    emit({Reorder{}, held.name, {slot}, {copy}, {}});
    slot = copy;
  }
  // What is kept beside its value must not be handed out once it is overwritten.
  std::erase_if(reordered_, [&](const auto& kept) {
    return program_.slots[kept.second].buffer == program_.slots[slot].buffer;
  });
  const double scale = held.grid ? held.grid->scale : 1;
  const auto zero_point = static_cast<double>(held.grid ? held.grid->zero_point : 0);
  chain.post.push_back({PostOp::Kind::kSum, scale, zero_point});
  chain.sum = slot;
  return true;
}

// Whether a layer whose chain is open reads the slot's buffer.
bool Lowering::is_awaited(size_t slot) const {
  return std::any_of(sources_.begin(), sources_.end(), [&](size_t source) {
    return program_.slots[source].buffer == program_.slots[slot].buffer;
  });
}

// The grid of the quantizer that is next behind a value, activations between.
std::optional<Grid> Lowering::grid_behind(const Value* value) const {
  for (const Node* node = only_user(value); node != nullptr; node = only_user(node->output())) {
    if (const std::optional<Grid> grid = grid_of(*node)) return grid;
    const std::optional<PostOp> activation = activation_of(*node);
    if (!activation || !scales_with_its_input(*activation)) return std::nullopt;
  }
  return std::nullopt;
}

bool Lowering::depends_on_chain(const Value* value) const {
  std::vector<const Value*> open{value};
  std::unordered_set<const Node*> seen;
  while (!open.empty()) {
    const Node* producer = open.back()->producer();
    open.pop_back();
    if (producer == nullptr || done_.contains(producer) || !seen.insert(producer).second) continue;
    if (in_chain_.contains(producer)) return true;
    for (const Argument& argument : producer->arguments()) {
      argument.each_value([&](const Value* used) { open.push_back(used); });
    }
  }
  return false;
}

// Computes a value ahead of its place in the graph if it does not need the chain itself.
bool Lowering::make_available(const Value* value) {
  if (slots_.contains(value) || pending_values_.contains(value)) return true;
  if (value->producer() == nullptr || depends_on_chain(value)) return false;
  lower(*value->producer());
  return slots_.contains(value) || pending_values_.contains(value);
}

// The layer's step: weights with the batch norm in them, everything in units of the output's grid
// (or of the grid in front of the sum, where the kernel rounds), so that kernels scale once.
Step Lowering::layer_step(const Node& layer, Affine affine, Chain& chain, bool padded) {
  const int64_t channels = affine.weight.size(0);
  at::Tensor bias =
      affine.bias.defined() ? affine.bias.to(at::kDouble) : at::zeros({channels}, at::kDouble);
  if (chain.factor.defined()) {
    if (chain.integers) {
      affine.scale = affine.scale * chain.factor;
    } else {
      std::vector<int64_t> along_channels(static_cast<size_t>(affine.weight.dim()), 1);
      along_channels[0] = channels;
      const at::Tensor stored = affine.weight;
      affine.weight = (stored.to(at::kDouble) * chain.factor.view(along_channels)).to(at::kFloat);
      release_pages(stored);
    }
    bias = bias * chain.factor + chain.shift;
  }
  Step step;
  step.name = layer.module_path.empty() ? chain.end->name() : layer.module_path;
  step.inputs = {chain.source};
  step.post = chain.post;
  if (chain.integers) {
    const Grid& source = program_.slots[chain.source].grid.value();
    if (padded) {
      affine.source_zero_point = source.zero_point;
    } else {  // a constant for each channel
      const at::Tensor sums = affine.weight.to(at::kDouble).reshape({channels, -1}).sum(1);
      bias = bias - sums * affine.scale * static_cast<double>(source.zero_point);
    }
    double unit = chain.rounded_unit;
    if (unit == 0) unit = chain.grid && all_scale(step.post) ? chain.grid->scale : 1;
    if (chain.grid) {
      affine.output_scale = chain.grid->scale / unit;
      affine.output_zero_point = chain.grid->zero_point;
      const bool ends_in_relu = !step.post.empty() &&
                                step.post.back().kind == PostOp::Kind::kRelu &&
                                step.post.back().alpha == 0;
      if (!chain.grid->fills_dtype()) {
        step.post.push_back({PostOp::Kind::kClip, chain.grid->lowest(), chain.grid->highest()});
      } else if (ends_in_relu && chain.grid->low == chain.grid->zero_point) {
        step.post.pop_back();  // codes below zero do not exist
      }
    }
    rescale(step.post, unit);
    if (!chain.channels_last && affine.output_zero_point != 0) {
      // Inner products know no zero point of what they write.
      step.post.push_back({PostOp::Kind::kLinear, 1 / affine.output_scale,
                           static_cast<double>(affine.output_zero_point)});
      affine.output_scale = 1;
      affine.output_zero_point = 0;
    }
    if (!chain.grid && unit != 1) step.post.push_back({PostOp::Kind::kLinear, unit, 0});
    affine.scale = (affine.scale / unit).to(at::kFloat).contiguous();
    bias = bias / unit;
  }
  affine.bias = bias.to(at::kFloat).contiguous();
  affine.weight = affine.weight.contiguous();
  step.work = Linear{std::move(affine)};
  return step;
}

void Lowering::emit_layer(Step step, const Chain& chain) {
  size_t output = 0;
  if (chain.sum) {
    output = alias_slot(chain.end, *chain.sum, chain.channels_last);
    step.inputs.push_back(*chain.sum);
    Slot& slot = program_.slots[output];
    slot.grid = chain.grid;
    if (chain.grid) slot.dtype = chain.grid->dtype();
  } else {
    output = output_slot(chain.end, chain.grid, chain.channels_last);
  }
  step.outputs = {output};
  emit(std::move(step));
  for (const Node* node : chain.nodes) {
    in_chain_.erase(node);
    done_.insert(node);
  }
}

}  // namespace compress::engine
