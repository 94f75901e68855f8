// Operators that copy elements to other places, or make tensors of a size that the graph names.

#include "compress/graph/channels_rules.h"

#include <algorithm>
#include <numeric>

namespace compress {
namespace {

Labels share(std::vector<Label> labels) {
  return std::make_shared<const std::vector<Label>>(std::move(labels));
}

void concatenate(RuleCall& call) {
  std::vector<const TensorChannels*> parts = call.list("tensors");
  // An old rule of `cat`: an empty vector fits everything.
  std::erase_if(parts,
                [](const TensorChannels* part) { return part->rank() == 1 && part->size(0) == 0; });
  if (parts.empty()) throw NoChannelRule{"puts nothing together"};
  TensorChannels result = *parts.front();
  const int64_t dim = from_front(call.integer("dim"), result.rank());
  std::vector<Label> joined;
  bool fixed = true;
  for (const TensorChannels* part : parts) {
    const Labels& labels = part->labels.at(dim);
    fixed = fixed && call.labels.is_fixed(labels);
    joined.insert(joined.end(), labels->begin(), labels->end());
    for (int64_t d = 0; d < result.rank(); ++d) {
      if (d != dim) call.join(result.labels[d], part->labels.at(d));
      result.zero[d] = result.zero[d] && part->zero[d];
    }
  }
  const auto size = static_cast<int64_t>(joined.size());
  result.labels[dim] = fixed ? call.labels.stays(size) : share(std::move(joined));
  call.give(std::move(result));
}

void stack(RuleCall& call) {
  const std::vector<const TensorChannels*> parts = call.list("tensors");
  TensorChannels result = *parts.at(0);
  const int64_t dim = from_front(call.integer("dim"), result.rank() + 1);
  for (const TensorChannels* part : parts) {
    for (int64_t d = 0; d < result.rank(); ++d) {
      call.join(result.labels[d], part->labels.at(d));
      result.zero[d] = result.zero[d] && part->zero[d];
    }
  }
  // How many there are is written in the graph as a list, so it stays.
  result.labels.insert(result.labels.begin() + dim,
                       call.labels.stays(static_cast<int64_t>(parts.size())));
  result.zero.insert(result.zero.begin() + dim, false);
  call.give(std::move(result));
}

// Padding adds channels of its own, or takes some away where it is negative.
void pad(RuleCall& call) {
  TensorChannels channels = call.operand("self");
  const std::vector<int64_t> amounts = call.integers("pad");
  bool constant = true, zero = true;
  if (call.node.has_argument("mode")) {
    constant = call.node.argument("mode").as<std::string>() == "constant";
  }
  const Argument& value = call.node.argument("value");
  if (value.is_int()) zero = value.as<int64_t>() == 0;
  if (const double* number = std::get_if<double>(&value.data())) zero = *number == 0;
  for (size_t i = 0; i < amounts.size() / 2; ++i) {
    const int64_t before = amounts[2 * i], after = amounts[2 * i + 1];
    const int64_t dim = channels.rank() - 1 - static_cast<int64_t>(i);
    if (before == 0 && after == 0) continue;
    const int64_t size = channels.size(dim) + before + after;
    if (!constant || call.labels.is_fixed(channels.labels.at(dim))) {
      call.freeze(channels.labels[dim], "is continued at its ends");
      channels.labels[dim] = call.labels.stays(size);
      continue;
    }
    std::vector<Label> labels = *channels.labels[dim];
    if (before < 0) labels.erase(labels.begin(), labels.begin() - before);
    if (after < 0) labels.erase(labels.end() + after, labels.end());
    const Labels front = call.labels.fresh(std::max<int64_t>(before, 0));
    const Labels back = call.labels.fresh(std::max<int64_t>(after, 0));
    labels.insert(labels.begin(), front->begin(), front->end());
    labels.insert(labels.end(), back->begin(), back->end());
    channels.labels[dim] = share(std::move(labels));
    channels.zero[dim] = channels.zero[dim] && zero;
  }
  call.give(std::move(channels));
}

void roll(RuleCall& call) {
  TensorChannels channels = call.operand("self");
  const std::vector<int64_t> shifts = call.integers("shifts"), dims = call.integers("dims");
  if (dims.size() != shifts.size()) throw NoChannelRule{"rolls over all dimensions"};
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t dim = from_front(dims[i], channels.rank());
    Labels& labels = channels.labels.at(dim);
    if (call.labels.is_fixed(labels)) continue;
    const auto size = static_cast<int64_t>(labels->size());
    std::vector<Label> rolled(size);
    for (int64_t j = 0; j < size; ++j)
      rolled[(((j + shifts[i]) % size) + size) % size] = (*labels)[j];
    labels = share(std::move(rolled));
  }
  call.give(std::move(channels));
}

void flip(RuleCall& call) {
  TensorChannels channels = call.operand("self");
  for (const int64_t given : call.integers("dims")) {
    Labels& labels = channels.labels.at(from_front(given, channels.rank()));
    if (!call.labels.is_fixed(labels)) labels = share({labels->rbegin(), labels->rend()});
  }
  call.give(std::move(channels));
}

// Copies of one dimension after another; new dimensions and those of size 1 are of its own making.
void repeat(RuleCall& call) {
  const TensorChannels input = call.operand("self");
  const char* name = call.node.has_argument("repeats") ? "repeats" : "dims";
  call.integers(name);  // none may be computed
  const std::vector<int64_t>& sizes = call.sizes();
  const auto rank = static_cast<int64_t>(sizes.size());
  TensorChannels result;
  for (int64_t e = 0; e < rank; ++e) {
    const int64_t d = e - rank + input.rank(), own = d < 0 ? 1 : input.size(d);
    if (own == sizes[e]) {
      result.add(input.labels.at(d < 0 ? 0 : d), d >= 0 && input.zero[d]);
      if (d < 0) result.labels.back() = call.labels.stays(1);
    } else if (own <= 1) {
      result.add(call.labels.fresh(sizes[e]), false);
    } else if (call.labels.is_fixed(input.labels[d])) {
      result.add(call.labels.stays(sizes[e]), false);
    } else {
      std::vector<Label> labels(sizes[e]);
      for (int64_t k = 0; k < sizes[e]; ++k) labels[k] = (*input.labels[d])[k % own];
      result.add(share(std::move(labels)), input.zero[d]);
    }
  }
  call.give(std::move(result));
}

void repeat_interleave(RuleCall& call) {
  TensorChannels channels = call.operand("self");
  const int64_t times = call.integer("repeats");
  const int64_t dim = from_front(call.integer("dim"), channels.rank());
  Labels& labels = channels.labels.at(dim);
  const auto size = static_cast<int64_t>(labels->size()) * times;
  if (call.labels.is_fixed(labels)) {
    labels = call.labels.stays(size);
  } else {
    std::vector<Label> repeated(size);
    for (int64_t k = 0; k < size; ++k) repeated[k] = (*labels)[k / times];
    labels = share(std::move(repeated));
  }
  call.give(std::move(channels));
}

void pixel_shuffle(RuleCall& call) {
  const TensorChannels input = call.operand("self");
  const int64_t factor = call.integer("upscale_factor"), dim = input.rank() - 3;
  const std::vector<Labels> parts = call.labels.split(
      input.labels.at(dim), {input.size(dim) / (factor * factor), factor * factor});
  call.freeze(parts[1], "makes a pixel's parts");
  TensorChannels result;
  for (int64_t d = 0; d < dim; ++d) result.add(input.labels[d], input.zero[d]);
  result.add(parts[0], input.zero[dim]);
  for (int64_t d = dim + 1; d < input.rank(); ++d) {
    call.freeze(input.labels[d], "is a dimension of places");
    result.add(call.labels.stays(input.size(d) * factor), false);
  }
  call.give(std::move(result));
}

void pixel_unshuffle(RuleCall& call) {
  const TensorChannels input = call.operand("self");
  const int64_t factor = call.integer("downscale_factor"), dim = input.rank() - 3;
  TensorChannels result;
  for (int64_t d = 0; d < dim; ++d) result.add(input.labels[d], input.zero[d]);
  result.add(call.labels.merge({input.labels.at(dim), call.labels.stays(factor * factor)}),
             input.zero[dim]);
  for (int64_t d = dim + 1; d < input.rank(); ++d) {
    call.freeze(input.labels[d], "is a dimension of places");
    result.add(call.labels.stays(input.size(d) / factor), false);
  }
  call.give(std::move(result));
}

void channel_shuffle(RuleCall& call) {
  TensorChannels channels = call.operand("self");
  const int64_t groups = call.integer("groups");
  const std::vector<Labels> parts =
      call.labels.split(channels.labels.at(1), {groups, channels.size(1) / groups});
  channels.labels[1] = call.labels.merge({parts[1], parts[0]});
  call.freeze(parts[0], "counts the groups of a shuffle");
  call.give(std::move(channels));
}

// Rows that a constant vector names: it is rewritten when some of them go.
void index_select(RuleCall& call) {
  TensorChannels channels = call.operand("self");
  call.freeze(call.operand("index"), "holds indices");
  const int64_t dim = from_front(call.integer("dim"), channels.rank());
  const std::optional<std::vector<int64_t>> index = call.constant_vector("index");
  Labels& labels = channels.labels.at(dim);
  if (index && !call.labels.is_fixed(labels)) {
    std::vector<Label> chosen;
    for (const int64_t row : *index) chosen.push_back(labels->at(row));
    labels = share(std::move(chosen));
  } else {
    call.freeze(labels, "is indexed by data");
    labels = call.labels.stays(call.sizes().at(dim));
  }
  call.give(std::move(channels));
}

// Dimensions with an index are fixed; where they end up follows NumPy's rule.
void index(RuleCall& call) {
  const TensorChannels input = call.operand("self");
  const Argument::List& indices = call.node.argument("indices").list();
  for (const TensorChannels* channels : call.list("indices"))
    call.freeze(*channels, "holds indices");
  int64_t first = -1, last = -1, count = 0;
  for (size_t d = 0; d < indices.size(); ++d) {
    if (indices[d].is_none()) continue;
    if (indices[d].value()->type.dtype == c10::kBool) throw NoChannelRule{"is indexed by flags"};
    call.freeze(input.labels.at(d), "is indexed by data");
    if (first < 0) first = static_cast<int64_t>(d);
    last = static_cast<int64_t>(d);
    ++count;
  }
  const std::vector<int64_t>& sizes = call.sizes();
  const int64_t indexed = static_cast<int64_t>(sizes.size()) - (input.rank() - count);
  const int64_t place = last - first + 1 == count ? first : 0;  // apart: they come first
  std::vector<int64_t> left;
  for (int64_t d = 0; d < input.rank(); ++d) {
    const auto at = static_cast<size_t>(d);
    if (at >= indices.size() || indices[at].is_none()) left.push_back(d);
  }
  TensorChannels result;
  size_t next = 0;
  for (int64_t e = 0; e < static_cast<int64_t>(sizes.size()); ++e) {
    if (e >= place && e < place + indexed) {
      result.add(call.labels.stays(sizes[e]), false);
    } else {
      result.add(input.labels[left.at(next)], input.zero[left[next]]);
      ++next;
    }
  }
  call.give(std::move(result));
}

// New tensors may be of any size, where the size is a number in the graph.
template <bool zero>
void create(RuleCall& call) {
  call.all();  // `new_zeros` takes nothing but the dtype from its operand
  const Argument::List& named = call.node.argument("size").list();
  TensorChannels result;
  for (size_t d = 0; d < named.size(); ++d) {
    const int64_t size = call.sizes().at(d);
    result.add(named[d].is_int() ? call.labels.fresh(size) : call.labels.stays(size), zero);
  }
  call.give(std::move(result));
}

void count_up(RuleCall& call) {
  TensorChannels result;
  for (const int64_t size : call.sizes()) result.add(call.labels.stays(size), false);
  call.give(std::move(result));
}

}  // namespace

void add_movement_rules(ChannelRules& rules) {
  for (const char* op : {"cat", "concat", "concatenate"}) rules[op] = concatenate;
  rules["stack"] = stack;
  for (const char* op : {"pad", "constant_pad_nd"}) rules[op] = pad;
  rules["roll"] = roll;
  rules["flip"] = flip;
  rules["repeat"] = repeat;
  rules["tile"] = repeat;
  rules["repeat_interleave.self_int"] = repeat_interleave;
  rules["pixel_shuffle"] = pixel_shuffle;
  rules["pixel_unshuffle"] = pixel_unshuffle;
  for (const char* op : {"channel_shuffle", "native_channel_shuffle"}) rules[op] = channel_shuffle;
  rules["index_select"] = index_select;
  rules["index.Tensor"] = index;
  for (const char* op : {"zeros", "new_zeros"}) rules[op] = create<true>;
  for (const char* op :
       {"ones", "new_ones", "full", "new_full", "empty.memory_format", "new_empty"}) {
    rules[op] = create<false>;
  }
  for (const char* op : {"arange", "linspace", "scalar_tensor", "eye"}) rules[op] = count_up;
}

}  // namespace compress
