// Views and permutations: the same elements under other sizes.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <numeric>

namespace compress::onnx {
namespace {

// Whatever the arguments say, the sizes that come out are those of the type.
void view(Call& call) {
  call.result(call.reshape(call.input("self"), call.sizes("self"), call.out_sizes()));
}

void permuted(Call& call, const std::vector<int64_t>& order) {
  call.result(call.transpose(call.input("self"), order));
}

std::vector<int64_t> in_order(int64_t rank) {
  std::vector<int64_t> order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

void permute(Call& call) { permuted(call, call.axes("dims", call.rank("self"))); }

void swap_axes(Call& call, int64_t a, int64_t b) {
  std::vector<int64_t> order = in_order(call.rank("self"));
  if (order.empty()) return call.result(call.input("self"));
  std::swap(order.at(static_cast<size_t>(a)), order.at(static_cast<size_t>(b)));
  permuted(call, order);
}

void transpose(Call& call) {
  const int64_t rank = call.rank("self");
  const bool is_named = call.has("axis0");
  swap_axes(call, call.axis(is_named ? "axis0" : "dim0", rank),
            call.axis(is_named ? "axis1" : "dim1", rank));
}

void transpose_matrices(Call& call) {
  const int64_t rank = call.rank("self");
  swap_axes(call, rank - 2, rank - 1);
}

void transpose_matrix(Call& call) {
  const int64_t rank = call.rank("self");
  swap_axes(call, rank < 2 ? 0 : 1, 0);
}

void reverse_axes(Call& call) {
  const std::vector<int64_t> order = in_order(call.rank("self"));
  permuted(call, {order.rbegin(), order.rend()});
}

void move_axis(Call& call) {
  const int64_t rank = call.rank("self");
  const int64_t from = call.axis("source", rank), to = call.axis("destination", rank);
  std::vector<int64_t> order = in_order(rank);
  order.erase(order.begin() + from);
  order.insert(order.begin() + to, from);
  permuted(call, order);
}

void unsqueeze(Call& call) {
  call.result(call.unsqueeze(call.input("self"), {call.axis("dim", call.out_rank())}));
}

// Only dimensions of size 1 go.
void squeeze(Call& call) {
  const std::vector<Dim>& sizes = call.sizes("self");
  std::vector<int64_t> axes;
  for (const int64_t axis : call.axes("dim", call.rank("self"))) {
    if (sizes[static_cast<size_t>(axis)] == Dim(1)) axes.push_back(axis);
  }
  const std::string x = call.input("self");
  call.result(axes.empty() ? x : call.squeeze(x, axes));
}

void squeeze_all(Call& call) {
  const std::vector<Dim>& sizes = call.sizes("self");
  std::vector<int64_t> axes;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == Dim(1)) axes.push_back(static_cast<int64_t>(i));
  }
  const std::string x = call.input("self");
  call.result(axes.empty() ? x : call.squeeze(x, axes));
}

void expand(Call& call) {
  const std::vector<Dim>&from = call.sizes("self"), &to = call.out_sizes();
  if (from == to) return call.result(call.input("self"));
  // Dimensions that stay need no size.
  std::vector<Dim> wanted = to;
  const size_t added = to.size() - from.size();
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] == to[added + i]) wanted[added + i] = Dim(1);
  }
  call.result(call.emit("Expand", {call.input("self"), call.shape(wanted)}));
}

void pixel_shuffle(Call& call) {
  if (call.rank("self") != 4) call.refuse("pixel_shuffle of other than images");
  call.result(call.emit("DepthToSpace", {call.input("self")},
                        {{"blocksize", call.integer("upscale_factor")}, {"mode", "CRD"}}));
}

// [n, c, h r, w r] -> [n, c r r, h, w]. SpaceToDepth would order the channels otherwise.
void pixel_unshuffle(Call& call) {
  if (call.rank("self") != 4) call.refuse("pixel_unshuffle of other than images");
  const int64_t factor = call.integer("downscale_factor");
  const std::vector<Dim>& sizes = call.sizes("self");
  const int64_t channels = call.fixed(sizes[1], "channels");
  const int64_t height = call.fixed(sizes[2], "an image") / factor;
  const int64_t width = call.fixed(sizes[3], "an image") / factor;
  std::string x = call.emit(
      "Reshape", {call.input("self"),
                  call.constant(std::vector<int64_t>{0, channels, height, factor, width, factor})});
  x = call.transpose(x, {0, 1, 3, 5, 2, 4});
  call.result(call.emit("Reshape", {x, call.constant(std::vector<int64_t>{
                                           0, channels * factor * factor, height, width})}));
}

void channel_shuffle(Call& call) {
  const int64_t groups = call.integer("groups");
  const int64_t channels = call.fixed(call.sizes("self").at(1), "channels");
  const std::string x = call.input("self");
  std::string grouped = call.emit(
      "Reshape", {x, call.constant(std::vector<int64_t>{0, groups, channels / groups, -1})});
  grouped = call.transpose(grouped, {0, 2, 1, 3});
  call.result(call.emit("Reshape", {grouped, call.emit("Shape", {x})}));
}

}  // namespace

Rules shape_rules() {
  return {{"aten::view", view},
          {"aten::reshape", view},
          {"aten::_unsafe_view", view},
          {"aten::flatten.using_ints", view},
          {"aten::unflatten.int", view},
          {"aten::reshape_as", view},
          {"aten::view_as", view},
          {"aten::permute", permute},
          {"aten::transpose.int", transpose},
          {"aten::swapaxes", transpose},
          {"aten::swapdims", transpose},
          {"aten::t", transpose_matrix},
          {"aten::mT", transpose_matrices},
          {"aten::numpy_T", reverse_axes},
          {"aten::movedim.int", move_axis},
          {"aten::unsqueeze", unsqueeze},
          {"aten::squeeze", squeeze_all},
          {"aten::squeeze.dim", squeeze},
          {"aten::squeeze.dims", squeeze},
          {"aten::expand", expand},
          {"aten::expand_as", expand},
          {"aten::broadcast_to", expand},
          {"aten::pixel_shuffle", pixel_shuffle},
          {"aten::pixel_unshuffle", pixel_unshuffle},
          {"aten::channel_shuffle", channel_shuffle}};
}

}  // namespace compress::onnx
