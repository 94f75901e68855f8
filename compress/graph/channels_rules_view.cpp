// Views: slices, permutations, expansions, and reshapes by their common factors.

#include "compress/graph/channels_rules.h"
#include "compress/graph/channels_view.h"

#include <algorithm>

namespace compress {
namespace {

std::vector<int64_t> sizes_of(const TensorChannels& channels) {
  std::vector<int64_t> sizes;
  for (const Labels& labels : channels.labels)
    sizes.push_back(static_cast<int64_t>(labels->size()));
  return sizes;
}

Labels selected(const Labels& labels, const ViewDim& dim, int64_t size) {
  if (dim.start == 0 && dim.step == 1 && static_cast<int64_t>(labels->size()) == size) {
    return labels;
  }
  std::vector<Label> chosen(size);
  for (int64_t k = 0; k < size; ++k) chosen[k] = (*labels)[dim.start + k * dim.step];
  return std::make_shared<const std::vector<Label>>(std::move(chosen));
}

// Bounds that are computed cannot move with the channels.
void freeze_computed_bounds(RuleCall& call, const TensorChannels& input) {
  bool computed = false;
  for (size_t i = 1; i < call.node.arguments().size(); ++i) {
    call.node.arguments()[i].each_value([&](const Value*) { computed = true; });
  }
  if (!computed || !call.node.has_argument("dim")) return;
  const int64_t dim = from_front(call.integer("dim"), input.rank());
  call.freeze(input.labels.at(dim), "is cut at computed bounds");
}

void view(RuleCall& call) {
  const TensorChannels input = call.operand(size_t{0});
  freeze_computed_bounds(call, input);
  const std::vector<ViewOutput> outputs = trace_view(call.node, sizes_of(input), call.scalars);
  if (outputs.size() != call.results()) throw NoChannelRule{"has other results than expected"};
  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::vector<int64_t>& sizes = call.sizes(i);
    if (sizes.size() != outputs[i].dims.size()) throw NoChannelRule{"has other sizes"};
    TensorChannels result;
    std::vector<bool> reached(input.labels.size(), false);
    for (size_t e = 0; e < sizes.size(); ++e) {
      const ViewDim& dim = outputs[i].dims[e];
      if (dim.from < 0) {
        result.add(call.labels.stays(sizes[e]), false);
      } else {
        reached[dim.from] = true;
        result.add(selected(input.labels[dim.from], dim, sizes[e]), input.zero[dim.from]);
      }
    }
    // One position was picked: it stays, the others need not.
    for (size_t d = 0; d < reached.size(); ++d) {
      if (reached[d] || input.labels[d]->size() <= 1) continue;
      call.labels.freeze((*input.labels[d])[outputs[i].origin[d]], &call.node,
                         "is picked by its number");
    }
    call.give(std::move(result), i);
  }
}

// Whether an element of a list of sizes is a number in the graph; a missing list is not computed.
bool is_literal(const RuleCall& call, std::string_view name, int64_t index) {
  const std::optional<size_t> position = call.node.argument_index(name);
  return !position || call.node.arguments()[*position].list().at(index).is_int();
}

// Sizes that are named in the graph may shrink: what is copied along them is of one's own making.
void expand(RuleCall& call) {
  const TensorChannels input = call.operand("self");
  if (call.is_tensor("other")) call.operand("other");
  const std::vector<int64_t>& sizes = call.sizes();
  TensorChannels result;
  const auto rank = static_cast<int64_t>(sizes.size());
  for (int64_t e = 0; e < rank; ++e) {
    const int64_t d = e - rank + input.rank();
    if (d >= 0 && input.size(d) == sizes[e]) {
      result.add(input.labels[d], input.zero[d]);
    } else {
      result.add(
          is_literal(call, "size", e) ? call.labels.fresh(sizes[e]) : call.labels.stays(sizes[e]),
          false);
    }
  }
  // The sizes of `other` are read: they are the result's.
  if (call.is_tensor("other")) {
    const TensorChannels& other = call.operand("other");
    for (int64_t e = 0; e < rank; ++e) call.join(result.labels[e], other.labels.at(e));
  }
  call.give(std::move(result));
}

// How many of the factors make up each dimension, which none but those of size 1 may lack.
std::vector<size_t> runs(const std::vector<int64_t>& sizes, const std::vector<int64_t>& factors) {
  std::vector<size_t> counts;
  size_t next = 0;
  for (const int64_t size : sizes) {
    size_t count = 0;
    for (int64_t product = 1; product < size; ++count) product *= factors.at(next++);
    counts.push_back(count);
  }
  return counts;
}

TensorChannels reshaped(RuleCall& call) {
  const TensorChannels input = call.operand(size_t{0});
  const std::vector<int64_t> before = sizes_of(input);
  const std::vector<int64_t>& after = call.sizes();
  const std::optional<std::vector<int64_t>> factors = common_factors(before, after);
  if (!factors) throw NoChannelRule{"mixes dimensions without a common factor"};
  std::vector<Labels> finest;
  std::vector<bool> zero;
  const std::vector<size_t> in_runs = runs(before, *factors), out_runs = runs(after, *factors);
  for (size_t d = 0; d < before.size(); ++d) {
    if (in_runs[d] == 0) continue;
    const auto first = factors->begin() + static_cast<std::ptrdiff_t>(finest.size());
    const std::vector<int64_t> parts(first, first + static_cast<std::ptrdiff_t>(in_runs[d]));
    for (Labels& part : call.labels.split(input.labels[d], parts)) {
      finest.push_back(std::move(part));
      zero.push_back(input.zero[d]);
    }
  }
  TensorChannels result;
  size_t next = 0;
  for (const size_t count : out_runs) {
    if (count == 0) {
      result.add(call.labels.stays(1), false);
      continue;
    }
    bool is_zero = true;
    const std::vector<Labels> parts(finest.begin() + static_cast<std::ptrdiff_t>(next),
                                    finest.begin() + static_cast<std::ptrdiff_t>(next + count));
    for (size_t i = next; i < next + count; ++i) {
      is_zero = is_zero && (zero[i] || call.labels.is_fixed(finest[i]));
    }
    next += count;
    result.add(call.labels.merge(parts), is_zero);
  }
  return result;
}

void reshape(RuleCall& call) { call.give(reshaped(call)); }

// The sizes are those of `other`, also when it has lost channels.
void reshape_like(RuleCall& call) {
  TensorChannels result = reshaped(call);
  const TensorChannels& other = call.operand("other");
  for (int64_t d = 0; d < result.rank(); ++d) call.join(result.labels[d], other.labels.at(d));
  call.give(std::move(result));
}

}  // namespace

void add_view_rules(ChannelRules& rules) {
  // Each must be a view whatever the strides of its operand: `trace_view` has no elements to copy.
  for (const char* op : {"permute",
                         "transpose.int",
                         "t",
                         "numpy_T",
                         "mT",
                         "swapaxes",
                         "swapdims",
                         "movedim.int",
                         "movedim.intlist",
                         "unsqueeze",
                         "squeeze",
                         "squeeze.dim",
                         "squeeze.dims",
                         "slice.Tensor",
                         "select.int",
                         "narrow",
                         "split.Tensor",
                         "split.sizes",
                         "split_with_sizes",
                         "chunk",
                         "unsafe_chunk",
                         "unsafe_split.Tensor",
                         "tensor_split.sections",
                         "unbind.int",
                         "diagonal",
                         "unfold"}) {
    rules[op] = view;
  }
  for (const char* op : {"expand", "expand_as", "broadcast_to"}) rules[op] = expand;
  for (const char* op :
       {"view", "reshape", "_unsafe_view", "flatten.using_ints", "unflatten.int", "ravel"}) {
    rules[op] = reshape;
  }
  for (const char* op : {"view_as", "reshape_as"}) rules[op] = reshape_like;
}

}  // namespace compress
