// What operators do to memory: which ones look at their argument's, and which change it.

#include "compress/graph/view_rules.h"

#include "compress/graph/schema.h"

#include <ATen/core/function_schema.h>

#include <algorithm>
#include <set>

namespace compress {
namespace {

using Names = std::set<std::string, std::less<>>;

// Views that reorder no elements: written back by giving the base's sizes to the new contents.
const Names kReshapes = {"view", "unsqueeze", "squeeze", "unflatten", "view_as"};
// Views that are their own inverse.
const Names kTranspositions = {"transpose", "t", "swapaxes", "swapdims", "adjoint"};
const Names kIdentities = {"alias", "detach", "lift_fresh"};
const Names kParts = {"select", "slice", "narrow", "diagonal",
                      "unbind", "split", "chunk",  "split_with_sizes"};
const Names kOneWays = {"expand", "expand_as", "as_strided", "unfold", "movedim", "real", "imag"};
const Names kDropouts = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"};
// These may return their argument although their schemas do not say so.
const Names kSilentBridges = {"type_as", "einsum", "atleast_1d", "atleast_2d", "atleast_3d"};

bool is_false(const Argument& argument) { return argument == Argument(false); }

// `to.dtype(x, dtype)` is x itself when nothing changes.
ViewKind conversion_kind(const Node& node) {
  if (node.op() != "aten::to.dtype" || !is_false(node.argument("copy"))) return ViewKind::kBridge;
  const Value* base = node.arguments()[0].value();
  const Argument& wanted = node.argument("dtype");
  if (base == nullptr || !base->type.dtype ||
      !std::holds_alternative<c10::ScalarType>(wanted.data())) {
    return ViewKind::kBridge;
  }
  return *base->type.dtype == wanted.as<c10::ScalarType>() ? ViewKind::kExact : ViewKind::kNone;
}

// Without training, dropout is its argument.
ViewKind dropout_kind(const Node& node) {
  const bool off = is_false(node.argument("train")) || node.argument("p") == Argument(0.0);
  return off ? ViewKind::kExact : ViewKind::kNone;
}

bool returns_its_memory(const c10::FunctionSchema& schema) {
  if (schema.arguments().empty() || schema.returns().empty()) return false;
  const c10::AliasInfo* from = schema.arguments()[0].alias_info();
  return from != nullptr && !from->isWrite() && schema.returns()[0].alias_info() != nullptr;
}

Value* call(Graph& graph, Node* before, std::string op, std::vector<Argument> arguments) {
  return graph.insert(before, {std::move(op), std::move(arguments), {}, {}, 1, {}})->output();
}

Value* slice_back(Graph& graph, Node* before, Value* base, Value* contents, const Argument& dim,
                  int64_t start, int64_t length) {
  return call(graph, before, "aten::slice_scatter",
              {base, contents, dim, start, start + length, int64_t{1}});
}

// Where piece `index` of a split begins and how long it is; nothing if that is not in numbers.
std::optional<std::pair<int64_t, int64_t>> piece(const Node& view, size_t index) {
  const auto at = static_cast<int64_t>(index);
  const std::string name = base_name(view.op());
  const Argument& given = view.arguments()[1];
  if (name == "chunk") {
    const std::optional<std::vector<Dim>>& sizes = view.arguments()[0].value()->type.sizes;
    const Argument& dim = view.argument("dim");
    if (!sizes || !dim.is_int() || !given.is_int() || given.as<int64_t>() <= 0) return std::nullopt;
    const auto rank = static_cast<int64_t>(sizes->size());
    const int64_t axis = dim.as<int64_t>() + (dim.as<int64_t>() < 0 ? rank : 0);
    if (axis < 0 || axis >= rank || (*sizes)[static_cast<size_t>(axis)].is_symbolic()) {
      return std::nullopt;
    }
    const int64_t size = (*sizes)[static_cast<size_t>(axis)].size;
    const int64_t length = (size + given.as<int64_t>() - 1) / given.as<int64_t>();
    return std::pair(at * length, length);
  }
  if (given.is_int()) return std::pair(at * given.as<int64_t>(), given.as<int64_t>());
  if (!given.is_list() || index >= given.list().size()) return std::nullopt;
  int64_t start = 0;
  for (size_t i = 0; i <= index; ++i) {
    if (!given.list()[i].is_int()) return std::nullopt;
    if (i < index) start += given.list()[i].as<int64_t>();
  }
  return std::pair(start, given.list()[index].as<int64_t>());
}

Value* write_back_part(Graph& graph, Node* before, const Node& view, size_t index, Value* base,
                       Value* contents) {
  const std::string name = base_name(view.op());
  const std::vector<Argument>& arguments = view.arguments();
  if (name == "select" || name == "slice" || name == "diagonal") {
    std::vector<Argument> scatter = {base, contents};
    scatter.insert(scatter.end(), arguments.begin() + 1, arguments.end());
    return call(graph, before, "aten::" + name + "_scatter", std::move(scatter));
  }
  if (name == "unbind") {
    return call(graph, before, "aten::select_scatter",
                {base, contents, arguments[1], static_cast<int64_t>(index)});
  }
  if (name == "narrow") {
    if (!arguments[2].is_int() || !arguments[3].is_int()) return nullptr;
    return slice_back(graph, before, base, contents, arguments[1], arguments[2].as<int64_t>(),
                      arguments[3].as<int64_t>());
  }
  const auto range = piece(view, index);
  if (!range) return nullptr;
  return slice_back(graph, before, base, contents, view.argument("dim"), range->first,
                    range->second);
}

Argument inverse_permutation(const Argument& dims) {
  std::vector<int64_t> inverse(dims.list().size());
  const auto rank = static_cast<int64_t>(inverse.size());
  const std::vector<int64_t> forward = dims.ints();
  for (size_t i = 0; i < forward.size(); ++i) {
    inverse.at(static_cast<size_t>(forward[i] < 0 ? forward[i] + rank : forward[i])) =
        static_cast<int64_t>(i);
  }
  return Argument(inverse);
}

}  // namespace

ViewKind view_kind(const Node& node) {
  const c10::FunctionSchema* schema = node.schema();
  if (schema == nullptr || !node.op().starts_with("aten::")) return ViewKind::kNone;
  const std::string name = base_name(node.op());
  if (kDropouts.contains(name)) return dropout_kind(node);
  if (name == "to") return conversion_kind(node);
  if (kSilentBridges.contains(name)) return ViewKind::kBridge;
  if (!returns_its_memory(*schema)) return ViewKind::kNone;
  if (node.op() == "aten::view.dtype") return ViewKind::kOneWay;
  if (kReshapes.contains(name) || kTranspositions.contains(name) || kIdentities.contains(name) ||
      kParts.contains(name) || name == "permute") {
    return ViewKind::kExact;
  }
  return kOneWays.contains(name) ? ViewKind::kOneWay : ViewKind::kBridge;
}

Value* insert_write_back(Graph& graph, Node* before, const Node& view, size_t index, Value* base,
                         Value* contents) {
  const std::string name = base_name(view.op());
  if (kReshapes.contains(name)) {
    return call(graph, before, "aten::reshape_as", {contents, base});
  }
  if (kParts.contains(name)) return write_back_part(graph, before, view, index, base, contents);
  if (kTranspositions.contains(name)) {
    std::vector<Argument> arguments = view.arguments();
    arguments[0] = Argument(contents);
    return call(graph, before, view.op(), std::move(arguments));
  }
  if (name == "permute") {
    return call(graph, before, "aten::permute",
                {contents, inverse_permutation(view.arguments()[1])});
  }
  return contents;  // the identities
}

std::string functional_twin(const std::string& op) {
  // These replace the memory itself; their functional forms mean something else.
  static const Names kMemory = {"set_", "resize_", "resize_as_", "as_strided_", "requires_grad_"};
  const std::string name = base_name(op);
  if (kMemory.contains(name)) return {};
  std::string twin_name;
  if (name.starts_with("__i") && name.ends_with("__")) {
    twin_name = "__" + name.substr(3);
  } else if (name.ends_with("_")) {
    twin_name = name.substr(0, name.size() - 1);
  } else {
    return {};
  }
  const size_t start = op.find("::") + 2;
  std::string twin = op.substr(0, start) + twin_name + op.substr(start + name.size());
  if (twin == "aten::bernoulli.float") twin = "aten::bernoulli.p";
  if (twin == "aten::normal") twin = "aten::normal_functional";
  const c10::FunctionSchema* from = find_schema(op);
  const c10::FunctionSchema* to = find_schema(twin);
  if (from == nullptr || to == nullptr || from->arguments().size() != to->arguments().size()) {
    return {};
  }
  // The tensor itself is `self` for one and `input` for the other with dropout.
  for (size_t i = 1; i < from->arguments().size(); ++i) {
    if (from->arguments()[i].name() != to->arguments()[i].name()) return {};
  }
  return to->is_mutable() ? std::string() : twin;
}

bool changes_metadata(const Node& node) {
  static const Names kMetadata = {"unsqueeze_", "squeeze_",  "transpose_", "t_",
                                  "swapaxes_",  "swapdims_", "detach_"};
  return kMetadata.contains(base_name(node.op()));
}

bool updates_own_statistics(const Node& node) {
  static const Names kNorms = {"_native_batch_norm_legit", "_batch_norm_with_update"};
  return kNorms.contains(base_name(node.op()));
}

bool keeps_dtype_of_self(const std::string& op) {
  static const Names kKeepers = {"copy",           "fill",         "zero",       "masked_fill",
                                 "masked_scatter", "index_put",    "index_fill", "index_copy",
                                 "index_add",      "index_reduce", "scatter",    "scatter_add",
                                 "scatter_reduce"};
  return kKeepers.contains(base_name(op));
}

}  // namespace compress
