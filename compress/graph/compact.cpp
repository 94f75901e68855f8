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
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <unordered_set>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace compress {
namespace {

// For each dimension the indices that stay; none where all do.
using Kept = std::vector<std::optional<std::vector<int64_t>>>;

#if defined(__x86_64__)

// For each choice of eight words the words that stay, moved to the front.
using Orders = std::array<std::array<int32_t, 8>, 256>;

constexpr Orders front_orders() {
  Orders orders{};
  for (size_t choice = 0; choice < orders.size(); ++choice) {
    size_t next = 0;
    for (int32_t word = 0; word < 8; ++word) {
      if ((choice >> word & 1) != 0) orders[choice][next++] = word;
    }
  }
  return orders;
}

bool has_vectors() { return __builtin_cpu_supports("avx2") != 0; }

// Eight words at once; what stands behind the last of them is overwritten.
__attribute__((target("avx2"))) char* copy_eights(const char* from, char* to,
                                                  const std::vector<uint8_t>& choices) {
  static constexpr Orders kOrders = front_orders();
  for (const uint8_t choice : choices) {
    const auto* order = reinterpret_cast<const __m256i*>(kOrders[choice].data());
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_permutevar8x32_epi32(words, _mm256_loadu_si256(order)));
    from += sizeof(__m256i);
    to += sizeof(float) * static_cast<size_t>(std::popcount(choice));
  }
  return to;
}

#else

bool has_vectors() { return false; }
char* copy_eights(const char*, char* to, const std::vector<uint8_t>&) { return to; }

#endif

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
    if (strides_[last_] == sizeof(float) && has_vectors()) choose_eights();
  }

  void copy(const at::Tensor& from, const at::Tensor& to) {
    char* start = static_cast<char*>(to.mutable_data_ptr());
    end_ = start + to.nbytes();
    copy(static_cast<const char*>(from.const_data_ptr()), start, 0);
  }

 private:
  // Returns the end of what was written.
  char* copy(const char* from, char* to, size_t dim) const {
    const int64_t stride = strides_[dim];
    if (dim == last_) return copy_last(from, to, stride);
    if (!kept_[dim]) {
      for (int64_t i = 0; i < sizes_[dim]; ++i) to = copy(from + i * stride, to, dim + 1);
    } else {
      for (const int64_t i : *kept_[dim]) to = copy(from + i * stride, to, dim + 1);
    }
    return to;
  }

  // Full eights of the last dimension, unless that would be to read much more than stays.
  void choose_eights() {
    const std::vector<int64_t>& kept = *kept_[last_];
    const int64_t eights = sizes_[last_] / 8;
    if (static_cast<int64_t>(kept.size()) < eights) return;
    COMPRESS_CHECK(std::is_sorted(kept.begin(), kept.end()), "indices stay in their order");
    choices_.resize(eights);
    for (const int64_t i : kept) {
      if (i < eights * 8) {
        choices_[i / 8] = static_cast<uint8_t>(choices_[i / 8] | 1U << i % 8);
        ++in_eights_;
      }
    }
  }

  char* copy_last(const char* from, char* to, int64_t size) const {
    const std::vector<int64_t>& kept = *kept_[last_];
    if (size == sizeof(float)) {  // of a constant size a copy is a move and no call
      size_t next = 0;
      const auto room = static_cast<size_t>(end_ - to);
      if (!choices_.empty() && room >= (kept.size() + 8) * sizeof(float)) {
        to = copy_eights(from, to, choices_);
        next = in_eights_;
      }
      for (; next < kept.size(); ++next) {
        std::memcpy(to, from + kept[next] * size, sizeof(float));
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
  // What stays of each eight words of that dimension, a bit a word; empty: copied one by one.
  std::vector<uint8_t> choices_;
  size_t in_eights_ = 0;  // words that stay in them
  const char* end_ = nullptr;
};

at::Tensor without(const at::Tensor& tensor, const Kept& kept) {
  at::Tensor result;
  if (tensor.is_cpu() && tensor.is_contiguous()) {
    std::vector<int64_t> sizes = tensor.sizes().vec();
    for (size_t d = 0; d < kept.size(); ++d) {
      if (kept[d]) sizes[d] = static_cast<int64_t>(kept[d]->size());
    }
    result = at::empty(sizes, tensor.options());
    KeptCopy(tensor, kept).copy(tensor, result);
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
