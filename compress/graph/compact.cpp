// Removes channels: slices tensors and updates types.

#include "compress/graph/compact.h"

#include "compress/error.h"
#include "compress/graph/compact_literals.h"
#include "compress/graph/kept_channels.h"
#include "compress/graph/shapes.h"
#include "compress/graph/verify.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>

namespace compress {
namespace {

// For each dimension the indices that stay; none where all do.
using Kept = std::vector<std::optional<std::vector<int64_t>>>;

// Copies what stays of a contiguous tensor in one pass; index_select takes one a dimension.
class KeptCopy {
 public:
  KeptCopy(const at::Tensor& tensor, const Kept& kept) : kept_(kept), sizes_(tensor.sizes()) {
    for (const int64_t stride : tensor.strides()) {
      strides_.push_back(stride * static_cast<int64_t>(tensor.element_size()));
    }
    for (size_t d = 0; d < kept.size(); ++d) {
      if (kept[d]) last_ = d;
    }
  }

  // Returns the end of what was written.
  char* copy(const char* from, char* to, size_t dim = 0) const {
    const int64_t stride = strides_[dim];
    if (dim == last_) return copy_last(from, to, *kept_[dim], stride);
    if (!kept_[dim]) {
      for (int64_t i = 0; i < sizes_[dim]; ++i) to = copy(from + i * stride, to, dim + 1);
    } else {
      for (const int64_t i : *kept_[dim]) to = copy(from + i * stride, to, dim + 1);
    }
    return to;
  }

 private:
  static char* copy_last(const char* from, char* to, const std::vector<int64_t>& kept,
                         int64_t size) {
    if (size == sizeof(float)) {  // of a constant size a copy is a move and no call
      for (const int64_t i : kept) {
        std::memcpy(to, from + i * size, sizeof(float));
        to += sizeof(float);
      }
      return to;
    }
    for (const int64_t i : kept) {
      std::memcpy(to, from + i * size, static_cast<size_t>(size));
      to += size;
    }
    return to;
  }

  const Kept& kept_;
  const c10::IntArrayRef sizes_;
  std::vector<int64_t> strides_;  // in bytes
  size_t last_ = 0;               // of the dimensions that lose something
};

at::Tensor without(const at::Tensor& tensor, const Kept& kept) {
  at::Tensor result;
  if (tensor.is_cpu() && tensor.is_contiguous()) {
    std::vector<int64_t> sizes = tensor.sizes().vec();
    for (size_t d = 0; d < kept.size(); ++d) {
      if (kept[d]) sizes[d] = static_cast<int64_t>(kept[d]->size());
    }
    result = at::empty(sizes, tensor.options());
    KeptCopy(tensor, kept)
        .copy(static_cast<const char*>(tensor.const_data_ptr()),
              static_cast<char*>(result.mutable_data_ptr()));
  } else {
    result = tensor.detach();
    for (size_t d = 0; d < kept.size(); ++d) {
      if (!kept[d]) continue;
      const at::Tensor index = at::tensor(*kept[d], at::kLong).to(tensor.device());
      result = result.index_select(static_cast<int64_t>(d), index);
    }
  }
  return result.set_requires_grad(tensor.requires_grad());
}

void slice_tensors(Model& model, const ChannelGroups& groups, const ChannelSet& set) {
  for (const Value* value : model.graph().named_tensors()) {
    if (!groups.is_cut(set, value)) continue;
    Kept kept(groups.rank(value));
    for (int64_t d = 0; d < groups.rank(value); ++d) {
      if (groups.is_cut(set, value, d)) kept[d] = groups.kept(set, value, d);
    }
    model.set_tensor(value->name(), without(model.tensor(value->name()), kept));
  }
}

// Whether all new sizes could be written down; a size that is computed from symbols cannot always.
bool update_types(Graph& graph, const ChannelGroups& groups, const ChannelSet& set) {
  bool complete = true;
  for (Node& node : graph.nodes()) {
    for (Value* output : node.outputs()) {
      if (!output->type.sizes || !groups.is_cut(set, output)) continue;
      for (int64_t d = 0; d < groups.rank(output); ++d) {
        if (!groups.is_cut(set, output, d)) continue;
        Dim& dim = output->type.sizes->at(d);
        if (dim.is_symbolic()) {
          complete = false;
        } else {
          dim = Dim(groups.left(set, output, d));
        }
      }
    }
  }
  return complete;
}

std::unordered_set<const Value*> used_values(const Graph& graph) {
  std::unordered_set<const Value*> used;
  const auto note = [&](const Argument& argument) {
    argument.each_value([&](const Value* value) { used.insert(value); });
  };
  for (const Node& node : graph.nodes()) {
    for (const Argument& argument : node.arguments()) note(argument);
  }
  for (const Output& output : graph.outputs()) note(output.value);
  for (const Output& update : graph.updates()) {
    note(update.value);
    used.insert(graph.find(update.name));
  }
  return used;
}

// Nodes and tensors that were used before the surgery and are not any more. What nothing used
// before (the counters of batch norms) stays.
void drop_leftovers(Model& model, const std::unordered_set<const Value*>& used_before) {
  Graph& graph = model.graph();
  const auto is_leftover = [&](const Value* value) { return used_before.contains(value); };
  for (bool dropped = true; dropped;) {
    dropped = false;
    const std::unordered_set<const Value*> used = used_values(graph);
    for (auto it = graph.nodes().end(); it != graph.nodes().begin();) {
      Node& node = *--it;
      const std::vector<Value*>& outputs = node.outputs();
      const bool any_used = std::any_of(outputs.begin(), outputs.end(),
                                        [&](const Value* value) { return used.contains(value); });
      if (any_used || !std::any_of(outputs.begin(), outputs.end(), is_leftover)) continue;
      const auto next = std::next(it);
      graph.erase(&node);
      it = next;
      dropped = true;
    }
    const std::vector<Value*> named = graph.named_tensors();
    for (const Value* value : named) {
      if (used.contains(value) || !is_leftover(value)) continue;
      model.remove_tensor(value->name());
      dropped = true;
    }
  }
}

}  // namespace

void remove(Model& model, const ChannelGroups& groups, const ChannelSet& set) {
  if (groups.version() != model.graph().version()) {
    throw Error(ErrorCode::kInvalidArgument,
                "the graph has changed since its channels were analysed", {}, "analyse it again");
  }
  if (set.empty()) return;
  for (const Value* value : model.graph().named_tensors()) {
    if (!groups.is_cut(set, value) || model.tensor(value->name()).defined()) continue;
    throw Error(ErrorCode::kRunFailed, "the values of this tensor are not known, only their digest",
                value->name(), "supply them before channels are removed");
  }
  // New nodes and tensors (constant indices) come in front of those that need them.
  std::vector<Node*> nodes;
  for (Node& node : model.graph().nodes()) nodes.push_back(&node);
  const std::unordered_set<const Value*> used = used_values(model.graph());
  std::vector<Replacement> replacements;
  for (Node* node : nodes) {
    if (const auto replacement = move_literals(model, *node, groups, set)) {
      replacements.push_back(*replacement);
    }
  }
  note_kept_channels(model, groups, set);
  slice_tensors(model, groups, set);
  const bool complete = update_types(model.graph(), groups, set);
  for (const Replacement& each : replacements) model.graph().replace_uses(each.value, each.with);
  drop_leftovers(model, used);
  if (!complete) propagate_shapes(model);
  verify(model, {.unused = false});
}

}  // namespace compress
