// Slices, joins, splits, pads: elements go elsewhere.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <algorithm>
#include <limits>

namespace compress::onnx {
namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

void slice(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self")), step = call.integer("step");
  const Size start = call.has("start") ? call.size(call.argument("start")) : Size(0);
  const Size end = call.has("end") ? call.size(call.argument("end")) : Size(kEnd);
  const std::string x = call.input("self");
  const bool is_all =
      start.is_known() && start.number == 0 && end.is_known() && end.number == kEnd && step == 1;
  call.result(is_all ? x : call.slice(x, axis, start, end, step));
}

void narrow(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  const Size start = call.size(call.argument("start"));
  Size end = call.arithmetic("Add", start, call.size(call.argument("length")));
  if (start.is_known() && start.number < 0 && end.is_known() && end.number == 0) end = Size(kEnd);
  call.result(call.slice(call.input("self"), axis, start, end));
}

void select(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  const std::string index = call.as_scalar(call.size(call.argument("index")));
  call.result(call.emit("Gather", {call.input("self"), index}, {{"axis", axis}}));
}

// Tensors of no elements and one dimension are neutral, an old habit that ONNX does not share.
void join(Call& call) {
  std::vector<std::string> parts;
  for (const Argument& part : call.argument("tensors").list()) {
    if (call.sizes_of(part) == std::vector<Dim>{Dim(0)} && call.out_rank() != 1) continue;
    parts.push_back(call.operand(part, call.out_dtype()));
  }
  call.result(call.emit("Concat", parts, {{"axis", call.axis("dim", call.out_rank())}}));
}

void stack(Call& call) {
  const int64_t axis = call.axis("dim", call.out_rank());
  std::vector<std::string> parts;
  for (const Argument& part : call.argument("tensors").list()) {
    parts.push_back(call.unsqueeze(call.operand(part, call.out_dtype()), {axis}));
  }
  call.result(call.emit("Concat", parts, {{"axis", axis}}));
}

// split, split_with_sizes, chunk: the types say how long the parts are.
void split(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  const size_t count = call.node().outputs().size();
  std::vector<Dim> lengths;
  for (size_t i = 0; i < count; ++i) {
    lengths.push_back(call.out_sizes(i).at(static_cast<size_t>(axis)));
  }
  const auto parts =
      call.emit_list("Split", {call.input("self"), call.shape(lengths)}, {{"axis", axis}}, count);
  for (size_t i = 0; i < count; ++i) call.result(parts[i], i);
}

void unbind(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  const std::string x = call.input("self");
  for (size_t i = 0; i < call.node().outputs().size(); ++i) {
    const std::string index = call.as_scalar(Size(static_cast<int64_t>(i)));
    call.result(call.emit("Gather", {x, index}, {{"axis", axis}}), i);
  }
}

void roll(Call& call) {
  const std::vector<int64_t> shifts = call.integers("shifts"), dims = call.integers("dims");
  if (dims.empty()) call.refuse("roll without dimensions");
  std::string x = call.input("self");
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t axis = dims[i] < 0 ? dims[i] + call.rank("self") : dims[i];
    const Dim& dim = call.sizes("self").at(static_cast<size_t>(axis));
    // The last `shift` come first; a slice counts negative positions from the end.
    int64_t shift = shifts.at(i);
    if (!dim.is_symbolic() && dim.size > 0) shift = ((shift % dim.size) + dim.size) % dim.size;
    if (shift == 0) continue;
    x = call.emit("Concat", {call.slice(x, axis, -shift, kEnd), call.slice(x, axis, 0, -shift)},
                  {{"axis", axis}});
  }
  call.result(x);
}

void flip(Call& call) {
  if (call.argument("dims").list().empty()) return call.result(call.input("self"));
  const std::vector<int64_t> axes = call.axes("dims", call.rank("self"));
  const std::vector<int64_t> starts(axes.size(), -1), steps(axes.size(), -1),
      ends(axes.size(), std::numeric_limits<int64_t>::min());
  call.result(call.emit("Slice", {call.input("self"), call.constant(starts), call.constant(ends),
                                  call.constant(axes), call.constant(steps)}));
}

void repeat(Call& call) {
  const Argument::List& repeats = call.argument("repeats").list();
  std::vector<Size> times;
  for (const Argument& element : repeats) times.push_back(call.size(element));
  std::string x = call.input("self");
  const int64_t added = static_cast<int64_t>(repeats.size()) - call.rank("self");
  std::vector<int64_t> front;
  for (int64_t i = 0; i < added; ++i) front.push_back(i);
  if (!front.empty()) x = call.unsqueeze(x, front);
  call.result(call.emit("Tile", {x, call.shape(times)}));
}

// What stands before and behind a part of a tensor, around another content of that part.
std::string replaced(Call& call, int64_t axis, const Size& start, const std::string& part,
                     const Size& end) {
  const std::string x = call.input("self");
  std::vector<std::string> parts{part};
  const auto is = [](const Size& size, int64_t number) {
    return size.is_known() && size.number == number;
  };
  if (!is(start, 0)) parts.insert(parts.begin(), call.slice(x, axis, 0, start));
  if (!is(end, kEnd)) parts.push_back(call.slice(x, axis, end, kEnd));
  return parts.size() == 1 ? part : call.emit("Concat", parts, {{"axis", axis}});
}

void slice_scatter(Call& call) {
  if (call.integer("step") != 1) call.refuse("parts with a step");
  const Size start = call.has("start") ? call.size(call.argument("start")) : Size(0);
  const Size end = call.has("end") ? call.size(call.argument("end")) : Size(kEnd);
  const std::string part = call.input("src", call.out_dtype());
  call.result(replaced(call, call.axis("dim", call.out_rank()), start, part, end));
}

void select_scatter(Call& call) {
  const int64_t axis = call.axis("dim", call.out_rank()), index = call.integer("index");
  const std::string part = call.unsqueeze(call.input("src", call.out_dtype()), {axis});
  call.result(replaced(call, axis, index, part, index == -1 ? kEnd : index + 1));
}

// The contents of `src` in the sizes and type of `self`.
void copy(Call& call) {
  const std::string shape = call.emit("Shape", {call.input("self")});
  call.result(call.emit("Expand", {call.input("src", call.out_dtype()), shape}));
}

// LibTorch counts from the last dimension and gives begin and end of each.
void pad_with(Call& call, const std::string& mode, const std::string& value) {
  const Argument::List& pads = call.argument("pad").list();
  const auto rank = static_cast<size_t>(call.rank("self"));
  std::vector<Size> begins(rank, Size(0)), ends(rank, Size(0));
  bool is_any = false;
  for (size_t i = 0; i < pads.size() / 2; ++i) {
    begins[rank - 1 - i] = call.size(pads[2 * i]);
    ends[rank - 1 - i] = call.size(pads[2 * i + 1]);
    for (const Size& size : {begins[rank - 1 - i], ends[rank - 1 - i]}) {
      is_any = is_any || !size.is_known() || size.number != 0;
    }
  }
  if (!is_any) return call.result(call.input("self"));
  begins.insert(begins.end(), ends.begin(), ends.end());
  call.result(call.emit("Pad", {call.input("self"), call.shape(begins), value}, {{"mode", mode}}));
}

std::string fill_value(Call& call) {
  const Argument& value = call.find("value");
  return value.is_none() ? call.constant(0, call.out_dtype())
                         : call.operand(value, call.out_dtype());
}

void pad(Call& call) {
  const std::string mode = call.text("mode");
  if (mode == "constant") return pad_with(call, "constant", fill_value(call));
  if (mode == "circular" && call.opset() < 19) call.refuse("circular padding needs opset 19");
  pad_with(call, mode == "replicate" ? "edge" : mode == "circular" ? "wrap" : "reflect", "");
}

void pad_constant(Call& call) { pad_with(call, "constant", fill_value(call)); }

}  // namespace

Rules movement_rules() {
  return {{"aten::slice.Tensor", slice},
          {"aten::narrow", narrow},
          {"aten::select.int", select},
          {"aten::cat", join},
          {"aten::concat", join},
          {"aten::stack", stack},
          {"aten::split.Tensor", split},
          {"aten::split_with_sizes", split},
          {"aten::chunk", split},
          {"aten::unbind.int", unbind},
          {"aten::roll", roll},
          {"aten::flip", flip},
          {"aten::repeat", repeat},
          {"aten::slice_scatter", slice_scatter},
          {"aten::select_scatter", select_scatter},
          {"aten::copy", copy},
          {"aten::pad", pad},
          {"aten::constant_pad_nd", pad_constant}};
}

}  // namespace compress::onnx
