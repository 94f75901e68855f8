// The numbers in a graph that depend on how many channels there are.

#include "compress/graph/compact_literals.h"

#include "compress/error.h"
#include "compress/graph/schema.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <unordered_map>

namespace compress {
namespace {

// One node with what stays of its operands and results.
class Literals {
 public:
  Literals(Model& model, Node& node, const ChannelGroups& groups, const ChannelSet& set)
      : model_(model), node_(node), groups_(groups), set_(set) {}

  void sizes(std::string_view name, int64_t first = 0);
  void split();
  void slice();
  void select();
  void pad();
  void roll();
  void convolution(bool transposed);
  void group_norm();
  void layer_norm();
  void attention();
  void repeat(std::string_view name);
  void repeat_interleave();
  void index_select();
  void narrow();

  const std::optional<Replacement>& replacement() const { return replacement_; }

 private:
  const Value* value(std::string_view name) const { return node_.argument(name).value(); }
  int64_t old_size(const Value* value, int64_t dim) const {
    return static_cast<int64_t>(groups_.classes(value, dim).size());
  }
  int64_t left(const Value* value, int64_t dim) const { return groups_.left(set_, value, dim); }
  bool is_cut(const Value* value, int64_t dim) const { return groups_.is_cut(set_, value, dim); }
  // A dimension that an argument names, counted from the front.
  int64_t dim_of(const Value* value) const {
    const auto dim = node_.argument("dim").as<int64_t>();
    return dim < 0 ? dim + groups_.rank(value) : dim;
  }
  // How many of the first `end` indices stay.
  int64_t before(const Value* value, int64_t dim, int64_t end) const {
    const std::vector<ChannelClass>& classes = groups_.classes(value, dim);
    return std::count_if(classes.begin(),
                         classes.begin() + std::clamp<int64_t>(end, 0, old_size(value, dim)),
                         [&](ChannelClass channel) { return !set_.gone[channel]; });
  }
  void set(std::string_view name, Argument argument) {
    if (node_.argument(name) == argument) return;
    model_.graph().set_argument(&node_, name, std::move(argument));
  }
  Argument size_entry(const Argument& entry, int64_t dim, bool& has_open);
  Value* index_tensor(const std::vector<int64_t>& rows);

  Model& model_;
  Node& node_;
  const ChannelGroups& groups_;
  const ChannelSet& set_;
  std::optional<Replacement> replacement_;
};

// The entry of a list of sizes for dimension `dim` of the result.
Argument Literals::size_entry(const Argument& entry, int64_t dim, bool& has_open) {
  const Value* output = node_.output();
  if (!is_cut(output, dim) || entry == Argument(-1)) return entry;
  const int64_t now = left(output, dim), then = old_size(output, dim);
  if (entry.is_int()) return Argument(now);
  const auto& sizes = output->type.sizes;
  if (sizes && !sizes->at(dim).is_symbolic()) return Argument(now);
  if (!has_open && base_name(node_.op()) != "expand") {
    has_open = true;
    return Argument(-1);
  }
  // The share of channels that stay is that of the computed size, too.
  Graph& graph = model_.graph();
  Value* scaled =
      graph.insert_raw(&node_, "scalar::mul", {entry, now}, {{"mul", ValueKind::kInt}})->output();
  return graph.insert_raw(&node_, "scalar::floordiv", {scaled, then}, {{"size", ValueKind::kInt}})
      ->output();
}

void Literals::sizes(std::string_view name, int64_t first) {
  Argument::List entries = node_.argument(name).list();
  bool has_open = std::find(entries.begin(), entries.end(), Argument(-1)) != entries.end();
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i] = size_entry(entries[i], first + static_cast<int64_t>(i), has_open);
  }
  set(name, Argument(std::move(entries)));
}

// Parts need no longer be equal.
void Literals::split() {
  const Value* input = node_.arguments().at(0).value();
  const int64_t dim = dim_of(input);
  if (!is_cut(input, dim)) return;
  std::vector<int64_t> parts;
  for (const Value* output : node_.outputs()) parts.push_back(left(output, dim));
  const auto was = node_.argument("dim");
  if (node_.op() != "aten::split_with_sizes") {
    model_.graph().set_op(&node_, "aten::split_with_sizes");
    model_.graph().set_argument(&node_, 1, Argument(parts));
    model_.graph().set_argument(&node_, 2, was);
  } else {
    set("split_sizes", Argument(parts));
  }
}

Value* Literals::index_tensor(const std::vector<int64_t>& rows) {
  std::string name = node_.output()->name() + "_index";
  while (model_.graph().find(name) != nullptr || model_.find_tensor(name) != nullptr) name += "_";
  return model_.add_tensor(name, at::tensor(rows, at::kLong).to(model_.device()),
                           TensorRole::kConstant);
}

void Literals::slice() {
  const Value* input = value("self");
  const int64_t dim = dim_of(input), size = old_size(input, dim);
  if (!is_cut(input, dim)) return;
  const auto bound = [&](const char* name, int64_t missing) {
    const Argument& argument = node_.argument(name);
    const int64_t given = argument.is_none() ? missing : argument.as<int64_t>();
    return std::clamp<int64_t>(given < 0 ? given + size : given, 0, size);
  };
  const int64_t start = bound("start", 0), end = std::max(start, bound("end", size));
  const auto step = node_.argument("step").as<int64_t>();
  if (step == 1) {
    const int64_t first = before(input, dim, start);
    set("start", node_.argument("start").is_none() ? Argument() : Argument(first));
    const bool open = end == size && !node_.argument("end").is_none();
    if (!node_.argument("end").is_none()) {
      set("end",
          open ? Argument(std::numeric_limits<int64_t>::max()) : Argument(before(input, dim, end)));
    }
    return;
  }
  std::vector<int64_t> rows;
  for (int64_t i = start; i < end; i += step) {
    if (set_.gone[groups_.classes(input, dim)[i]]) continue;
    rows.push_back(before(input, dim, i));
  }
  Node* chosen =
      model_.graph().insert(&node_, {.op = "aten::index_select",
                                     .arguments = {node_.argument("self"), dim, index_tensor(rows)},
                                     .name = node_.output()->name()});
  chosen->module_path = node_.module_path;
  Value* result = chosen->output();
  result->type = node_.output()->type;
  if (result->type.sizes) {
    result->type.sizes->at(dim) = Dim(static_cast<int64_t>(rows.size()));
  }
  replacement_ = Replacement{node_.output(), result};
}

void Literals::narrow() {
  const Value* input = value("self");
  const int64_t dim = dim_of(input);
  if (!is_cut(input, dim)) return;
  const auto start = node_.argument("start").as<int64_t>();
  set("start", before(input, dim, start < 0 ? start + old_size(input, dim) : start));
  set("length", left(node_.output(), dim));
}

void Literals::select() {
  const Value* input = value("self");
  const int64_t dim = dim_of(input);
  if (!is_cut(input, dim)) return;
  const auto index = node_.argument("index").as<int64_t>();
  set("index", before(input, dim, index < 0 ? index + old_size(input, dim) : index));
}

// What is left of the padding on each side; a negative amount cuts off.
void Literals::pad() {
  const Value* input = value("self");
  const Value* output = node_.output();
  std::vector<int64_t> amounts = node_.argument("pad").ints();
  for (size_t i = 0; i < amounts.size() / 2; ++i) {
    const int64_t dim = groups_.rank(input) - 1 - static_cast<int64_t>(i);
    if (!is_cut(input, dim) && !is_cut(output, dim)) continue;
    int64_t &front = amounts[2 * i], &back = amounts[2 * i + 1];
    const int64_t in = old_size(input, dim), out = old_size(output, dim);
    const int64_t new_front = front >= 0 ? before(output, dim, front) : -before(input, dim, -front);
    const int64_t new_back = back >= 0 ? left(output, dim) - before(output, dim, out - back)
                                       : -(left(input, dim) - before(input, dim, in + back));
    front = new_front;
    back = new_back;
  }
  set("pad", Argument(amounts));
}

void Literals::roll() {
  const Value* input = value("self");
  std::vector<int64_t> shifts = node_.argument("shifts").ints();
  const std::vector<int64_t> dims = node_.argument("dims").ints();
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t dim = dims[i] < 0 ? dims[i] + groups_.rank(input) : dims[i];
    if (!is_cut(input, dim)) continue;
    const int64_t size = old_size(input, dim), shift = ((shifts[i] % size) + size) % size;
    shifts[i] = left(input, dim) - before(input, dim, size - shift);  // what comes to the front
  }
  set("shifts", Argument(shifts));
}

void Literals::convolution(bool transposed) {
  const Value *input = value("input"), *weight = value("weight");
  if (node_.argument("groups") == Argument(1)) return;
  const int64_t channel = groups_.rank(input) - (groups_.rank(weight) - 1);
  const int64_t channels = transposed ? left(node_.output(), channel) : left(input, channel);
  set("groups", channels / left(weight, 1));
}

// Groups of which any channel stays; each of them has as many.
void Literals::group_norm() {
  const Value* input = value("input");
  if (!is_cut(input, 1)) return;
  const int64_t each = old_size(input, 1) / node_.argument("num_groups").as<int64_t>();
  std::set<int64_t> stay;
  for (const int64_t index : groups_.kept(set_, input, 1)) stay.insert(index / each);
  set("num_groups", static_cast<int64_t>(stay.size()));
}

void Literals::layer_norm() {
  const Value* input = value("input");
  std::vector<int64_t> shape = node_.argument("normalized_shape").ints();
  const int64_t first = groups_.rank(input) - static_cast<int64_t>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) shape[i] = left(input, first + static_cast<int64_t>(i));
  set("normalized_shape", Argument(shape));
}

// The default scale follows the width of a head, but the weights were trained with the old one.
void Literals::attention() {
  const Value* query = value("query");
  const int64_t width = groups_.rank(query) - 1;
  if (!node_.argument("scale").is_none() || !is_cut(query, width)) return;
  set("scale", 1.0 / std::sqrt(static_cast<double>(old_size(query, width))));
}

void Literals::repeat(std::string_view name) {
  const Value *input = value("self"), *output = node_.output();
  std::vector<int64_t> times = node_.argument(name).ints();
  const int64_t rank = groups_.rank(output), from = rank - static_cast<int64_t>(times.size());
  for (size_t i = 0; i < times.size(); ++i) {
    const int64_t e = from + static_cast<int64_t>(i), d = e - rank + groups_.rank(input);
    const int64_t own = d < 0 ? 1 : left(input, d);
    if (is_cut(output, e)) times[i] = left(output, e) / own;
  }
  set(name, Argument(times));
}

void Literals::repeat_interleave() {
  const Value* output = node_.output();
  const int64_t dim = dim_of(output);
  if (node_.argument("output_size").is_int() && is_cut(output, dim)) {
    set("output_size", left(output, dim));
  }
}

void Literals::index_select() {
  const Value *input = value("self"), *index = value("index");
  const int64_t dim = dim_of(input);
  if (!is_cut(input, dim)) return;
  const at::Tensor old = model_.tensor(index->name()).to(at::kLong).cpu().contiguous();
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < old.numel(); ++i) {
    const int64_t row = old.const_data_ptr<int64_t>()[i];
    if (!set_.gone[groups_.classes(input, dim)[row]]) rows.push_back(before(input, dim, row));
  }
  set("index", index_tensor(rows));
}

using Move = void (*)(Literals&);

// By base name; operators that are not here have no such literals.
const std::unordered_map<std::string, Move>& moves() {
  static const std::unordered_map<std::string, Move> all = [] {
    std::unordered_map<std::string, Move> moves;
    for (const char* op :
         {"view", "reshape", "_unsafe_view", "expand", "broadcast_to", "zeros", "ones", "full",
          "empty", "new_zeros", "new_ones", "new_full", "new_empty"}) {
      moves[op] = [](Literals& node) { node.sizes("size"); };
    }
    moves["reshape"] = [](Literals& node) { node.sizes("shape"); };
    for (const char* op :
         {"split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split"}) {
      moves[op] = [](Literals& node) { node.split(); };
    }
    moves["slice"] = [](Literals& node) { node.slice(); };
    moves["narrow"] = [](Literals& node) { node.narrow(); };
    moves["select"] = [](Literals& node) { node.select(); };
    for (const char* op : {"pad", "constant_pad_nd"}) {
      moves[op] = [](Literals& node) { node.pad(); };
    }
    moves["roll"] = [](Literals& node) { node.roll(); };
    for (const char* op : {"conv1d", "conv2d", "conv3d"}) {
      moves[op] = [](Literals& node) { node.convolution(false); };
    }
    for (const char* op : {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}) {
      moves[op] = [](Literals& node) { node.convolution(true); };
    }
    moves["group_norm"] = [](Literals& node) { node.group_norm(); };
    for (const char* op : {"layer_norm", "rms_norm"}) {
      moves[op] = [](Literals& node) { node.layer_norm(); };
    }
    moves["scaled_dot_product_attention"] = [](Literals& node) { node.attention(); };
    moves["repeat"] = [](Literals& node) { node.repeat("repeats"); };
    moves["tile"] = [](Literals& node) { node.repeat("dims"); };
    moves["repeat_interleave"] = [](Literals& node) { node.repeat_interleave(); };
    moves["index_select"] = [](Literals& node) { node.index_select(); };
    return moves;
  }();
  return all;
}

}  // namespace

std::optional<Replacement> move_literals(Model& model, Node& node, const ChannelGroups& groups,
                                         const ChannelSet& set) {
  bool touched = false;
  for (const Argument& argument : node.arguments()) {
    argument.each_value([&](const Value* value) { touched |= groups.is_cut(set, value); });
  }
  for (const Value* output : node.outputs()) touched |= groups.is_cut(set, output);
  if (!touched) return std::nullopt;
  Literals literals(model, node, groups, set);
  if (node.op() == "aten::unflatten.int") {
    const Value* input = node.argument("self").value();
    const auto dim = node.argument("dim").as<int64_t>();
    literals.sizes("sizes", dim < 0 ? dim + groups.rank(input) : dim);
  } else if (const auto move = moves().find(base_name(node.op())); move != moves().end()) {
    move->second(literals);
  }
  return literals.replacement();
}

}  // namespace compress
