// Slices and zero padding of images, several in a row as one step.
//
// The shortcut of a CIFAR ResNet without weights is such a row: every second pixel, then channels
// of zeros (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, option A).

#include "compress/engine/lowering.h"

#include <algorithm>
#include <cstdint>

namespace compress::engine {
namespace {

bool add_slice(const Node& slice, Crop& crop) {
  for (const char* name : {"start", "end", "step", "dim"}) {
    if (slice.argument(name).is_value()) return false;
  }
  int64_t dim = slice.argument("dim").as<int64_t>();
  if (dim < 0) dim += 4;
  const int64_t size = sizes_of(slice.arguments()[0].value())[static_cast<size_t>(dim)];
  int64_t start = slice.argument("start").is_int() ? slice.argument("start").as<int64_t>() : 0;
  if (start < 0) start += size;
  start = std::clamp<int64_t>(start, 0, size);
  const int64_t step = slice.argument("step").as<int64_t>();
  if (dim == 0 || (dim == 1 && step != 1)) return false;
  Crop::Dimension& along = dim == 1 ? crop.channels : dim == 2 ? crop.rows : crop.columns;
  along.start += start * along.step;
  along.step *= step;
  along.count = sizes_of(slice.output())[static_cast<size_t>(dim)];
  return true;
}

bool add_padding(const Node& pad, Crop& crop) {
  if (pad.op() == "aten::pad" && !(pad.argument("mode") == Argument("constant"))) return false;
  const Argument& value = pad.argument("value");
  if (!value.is_none() && !(value == Argument(0.0)) && !(value == Argument(0))) return false;
  std::vector<int64_t> amounts;
  for (const Argument& amount : pad.argument("pad").list()) {
    if (!amount.is_int() || amount.as<int64_t>() < 0) return false;
    amounts.push_back(amount.as<int64_t>());
  }
  amounts.resize(8, 0);  // of columns, rows, channels, batch: before and after
  if (amounts[6] != 0 || amounts[7] != 0) return false;
  crop.columns.before = amounts[0];
  crop.rows.before = amounts[2];
  crop.channels.before = amounts[4];
  return true;
}

// Adds what `node` does to `crop`; false if it cannot be part of the same step.
bool compose(const Node& node, Crop& crop) {
  return node.op() == "aten::slice.Tensor" ? add_slice(node, crop) : add_padding(node, crop);
}

bool is_slice_or_pad(const Node& node) {
  return node.op() == "aten::slice.Tensor" || node.op() == "aten::pad" ||
         node.op() == "aten::constant_pad_nd";
}

}  // namespace

bool Lowering::lower_crop(const Node& node) {
  const Value* input = node.arguments()[0].value();
  if (!is_slice_or_pad(node) || sizes_of(input).size() != 4) return false;
  const std::vector<int64_t> sizes = sizes_of(input);
  Crop crop{{0, 1, sizes[1], 0}, {0, 1, sizes[2], 0}, {0, 1, sizes[3], 0}};
  const Value* end = nullptr;
  bool padded = false;
  for (const Node* next = &node; next != nullptr && !padded; next = only_user(end)) {
    if (!is_slice_or_pad(*next) || !compose(*next, crop)) break;
    padded = next->op() != "aten::slice.Tensor";
    end = next->output();
    if (next != &node) done_.insert(next);
  }
  if (end == nullptr) return false;
  const bool on_grid = program_.slots[slot_of(input)].grid.has_value();
  const size_t source = on_grid ? in_order(slot_of(input), true) : as_float(input);
  const size_t output = output_slot(end, program_.slots[source].grid, true);
  emit({crop, end->name(), {source}, {output}, {}});
  return true;
}

}  // namespace compress::engine
