// Values and slots: dtypes, layouts, views, and the stretches that run through LibTorch.

#include "compress/engine/lowering.h"
#include "compress/error.h"
#include "compress/graph/extract.h"
#include "compress/graph/interpreter.h"
#include "compress/graph/schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace compress::engine {

std::vector<int64_t> sizes_of(const Value* value) {
  std::vector<int64_t> sizes;
  for (const Dim& dim : value->type.sizes.value()) sizes.push_back(dim.size);
  return sizes;
}

const Node* Lowering::only_user(const Value* value) const {
  const std::vector<Use>& uses = uses_.of(value);
  return uses.size() == 1 ? uses.front().node : nullptr;
}

at::Tensor Lowering::constant(const Argument& argument) const {
  return argument.is_value() ? evaluate(model_, argument.value()).detach() : at::Tensor();
}

bool Lowering::is_float_tensor(const Value* value) const {
  return value != nullptr && value->kind() == ValueKind::kTensor && value->type.sizes &&
         value->type.dtype == c10::kFloat && !is_constant(value);
}

size_t Lowering::new_slot(const std::string& name, std::vector<int64_t> sizes,
                          c10::ScalarType dtype, bool channels_last, std::optional<Grid> grid) {
  Slot slot{name, std::move(sizes), dtype, channels_last, grid, program_.buffers.size()};
  program_.buffers.push_back({slot.bytes(), std::nullopt});
  values_of_buffer_.emplace_back();
  program_.slots.push_back(std::move(slot));
  return program_.slots.size() - 1;
}

size_t Lowering::output_slot(const Value* value, std::optional<Grid> grid, bool channels_last) {
  const c10::ScalarType type = value->type.dtype.value();
  const c10::ScalarType dtype = grid                  ? grid->dtype()
                                : type == c10::kFloat ? arithmetic_.float_type
                                                      : type;
  const size_t slot = new_slot(value->name(), sizes_of(value), dtype,
                               channels_last && value->type.sizes->size() == 4, grid);
  bind(value, slot);
  return slot;
}

size_t Lowering::alias_slot(const Value* value, size_t slot, bool channels_last) {
  Slot view = program_.slots[slot];
  view.name = value->name();
  view.sizes = sizes_of(value);
  view.channels_last = channels_last;
  program_.slots.push_back(std::move(view));
  bind(value, program_.slots.size() - 1);
  return program_.slots.size() - 1;
}

void Lowering::bind(const Value* value, size_t slot) {
  slots_[value] = slot;
  values_of_buffer_[program_.slots[slot].buffer].push_back(value);
}

size_t Lowering::slot_of(const Value* value) {
  if (pending_values_.contains(value)) flush();
  const auto found = slots_.find(value);
  COMPRESS_CHECK(found != slots_.end(), fmt::format("`{}` has no slot", value->name()));
  return found->second;
}

size_t Lowering::reordered(size_t slot, bool channels_last, c10::ScalarType dtype,
                           std::optional<Grid> grid) {
  const Slot from = program_.slots[slot];
  if (from.channels_last == channels_last && from.dtype == dtype && from.grid == grid) return slot;
  const auto [known, is_new] = reordered_.try_emplace({slot, channels_last, dtype}, 0);
  if (is_new) {
    known->second = new_slot(from.name, from.sizes, dtype, channels_last, grid);
    emit({Reorder{}, from.name, {slot}, {known->second}, {}});
  }
  return known->second;
}

size_t Lowering::in_order(size_t slot, bool channels_last) {
  const Slot& from = program_.slots[slot];
  return reordered(slot, channels_last && from.sizes.size() == 4, from.dtype, from.grid);
}

size_t Lowering::as_float(const Value* value, bool channels_last) {
  const size_t slot = slot_of(value);
  return reordered(slot, channels_last && program_.slots[slot].sizes.size() == 4,
                   arithmetic_.float_type, std::nullopt);
}

// Codes of a slot's values; what a grid of fewer than eight bits cannot hold is clipped first.
size_t Lowering::quantized(size_t slot, const Grid& grid, const std::string& name) {
  if (program_.slots[slot].grid && !grid.fills_dtype()) {
    slot =
        reordered(slot, program_.slots[slot].channels_last, arithmetic_.float_type, std::nullopt);
  }
  const bool channels_last = program_.slots[slot].sizes.size() == 4;
  if (!grid.fills_dtype()) {
    slot = reordered(slot, channels_last, arithmetic_.float_type, std::nullopt);
    const size_t clipped =
        new_slot(name, program_.slots[slot].sizes, arithmetic_.float_type, channels_last);
    emit({Elementwise{},
          name,
          {slot},
          {clipped},
          {{PostOp::Kind::kClip, grid.lowest(), grid.highest()}}});
    slot = clipped;
  }
  const size_t codes =
      new_slot(name, program_.slots[slot].sizes, grid.dtype(), channels_last, grid);
  emit({Reorder{}, name, {slot}, {codes}, {}});
  return codes;
}

// Whether nothing but `user` reads the slot's buffer any more, so that it may be overwritten.
bool Lowering::dies_at(size_t slot, const Node& user) const {
  const size_t buffer = program_.slots[slot].buffer;
  if (program_.buffers[buffer].input) return false;
  for (const Value* value : values_of_buffer_[buffer]) {
    for (const Use& use : uses_.of(value)) {
      if (use.node == nullptr) return false;
      const bool is_read = done_.contains(use.node) &&
                           std::find(pending_.begin(), pending_.end(), use.node) == pending_.end();
      if (use.node != &user && !is_read) return false;
    }
  }
  return true;
}

void Lowering::emit(Step step) { program_.steps.push_back(std::move(step)); }

// Kernels for images want channels last; a stretch that feeds them writes its result so.
bool Lowering::wants_channels_last(const Value* value) const {
  static const std::set<std::string> kImages = {"conv2d",     "convolution", "max_pool2d",
                                                "avg_pool2d", "batch_norm",  "adaptive_avg_pool2d"};
  const std::vector<Use>& uses = uses_.of(value);
  return std::any_of(uses.begin(), uses.end(), [](const Use& use) {
    return use.node != nullptr && kImages.contains(base_name(use.node->op()));
  });
}

void Lowering::flush() {
  if (pending_.empty()) return;
  const std::vector<const Node*> nodes = std::move(pending_);
  pending_.clear();
  const std::unordered_set<const Node*> inside(nodes.begin(), nodes.end());
  std::vector<const Value*> inputs, outputs;
  std::vector<std::string> operators;
  for (const Node* node : nodes) {
    operators.push_back(base_name(node->op()));
    for (const Argument& argument : node->arguments()) {
      argument.each_value([&](const Value* value) {
        const bool known = std::find(inputs.begin(), inputs.end(), value) != inputs.end();
        if (!known && !is_constant(value) && !inside.contains(value->producer())) {
          inputs.push_back(value);
        }
      });
    }
    for (const Value* value : node->outputs()) {
      const std::vector<Use>& uses = uses_.of(value);
      if (std::any_of(uses.begin(), uses.end(),
                      [&](const Use& use) { return !inside.contains(use.node); })) {
        outputs.push_back(value);
      }
    }
  }
  pending_values_.clear();
  Stretch stretch{std::make_shared<const Model>(extract(model_, inputs, outputs)),
                  fmt::format("{}", fmt::join(operators, " "))};
  Step step{stretch, nodes.front()->module_path, {}, {}, {}};
  for (const Value* value : inputs) {
    const size_t slot = slot_of(value);
    step.inputs.push_back(program_.slots[slot].grid ? as_float(value) : slot);
  }
  for (const Value* value : outputs) {
    step.outputs.push_back(output_slot(value, std::nullopt, wants_channels_last(value)));
  }
  if (step.name.empty()) step.name = nodes.front()->output()->name();
  emit(std::move(step));
}

}  // namespace compress::engine
