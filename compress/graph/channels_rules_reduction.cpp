// Operators that look along a dimension (reductions, softmax, sorting) or at a neighbourhood
// (pooling, resampling).

#include "compress/graph/channels_rules.h"
#include "compress/graph/schema.h"

#include <algorithm>
#include <set>

namespace compress {
namespace {

std::set<int64_t> dimensions(RuleCall& call, int64_t rank) {
  std::set<int64_t> dims;
  if (call.node.has_argument("dim")) {
    for (const int64_t dim : call.integers("dim")) dims.insert(from_front(dim, rank));
  }
  if (!dims.empty()) return dims;
  for (int64_t d = 0; d < rank; ++d) dims.insert(d);
  return dims;
}

// The dimensions that a reduction leaves.
TensorChannels rest(RuleCall& call, const TensorChannels& input, const std::set<int64_t>& dims) {
  TensorChannels result;
  const bool keeps = call.flag("keepdim");
  for (int64_t d = 0; d < input.rank(); ++d) {
    if (!dims.contains(d)) {
      result.add(input.labels[d], input.zero[d]);
    } else if (keeps) {
      result.add(call.labels.stays(1), false);
    }
  }
  return result;
}

// What a sum misses is zero, or else it changes.
void sum(RuleCall& call) {
  const TensorChannels& input = call.operand(size_t{0});
  const std::set<int64_t> dims = dimensions(call, input.rank());
  for (const int64_t d : dims) {
    if (input.zero.at(d)) continue;
    call.labels.mark_inexact(input.labels[d], &call.node,
                             "sums what is not zero where channels go");
  }
  call.give(rest(call, input, dims));
}

void average(RuleCall& call) {
  const TensorChannels& input = call.operand(size_t{0});
  const std::set<int64_t> dims = dimensions(call, input.rank());
  for (const int64_t d : dims) {
    call.labels.mark_inexact(input.labels.at(d), &call.node, "averages over channels");
  }
  for (size_t i = 0; i < call.results(); ++i) call.give(rest(call, input, dims), i);
}

void choose(RuleCall& call) {
  const TensorChannels& input = call.operand(size_t{0});
  const std::set<int64_t> dims = dimensions(call, input.rank());
  for (const int64_t d : dims) call.freeze(input.labels.at(d), "is compared along");
  TensorChannels result = rest(call, input, dims);
  result.zero.assign(result.zero.size(), false);
  for (size_t i = 0; i < call.results(); ++i) call.give(result, i);
}

// A norm of negative order is ruled by the smallest element.
void norm(RuleCall& call) {
  for (const char* name : {"ord", "p"}) {
    const std::optional<size_t> index = call.node.argument_index(name);
    if (!index) continue;
    const auto& order = call.node.arguments()[*index].data();
    const auto* whole = std::get_if<int64_t>(&order);
    const auto* real = std::get_if<double>(&order);
    if ((whole != nullptr && *whole < 0) || (real != nullptr && *real < 0)) return choose(call);
  }
  sum(call);
}

// A dimension that stays but mixes its elements.
void along(RuleCall& call) {
  TensorChannels result = call.operand(size_t{0});
  const int64_t dim = from_front(call.integer("dim"), result.rank());
  if (result.rank() > 0) call.freeze(result.labels.at(dim), "is looked at as a whole");
  result.zero.assign(result.zero.size(), false);
  for (size_t i = 0; i < call.results(); ++i) call.give(result, i);
}

void triangle(RuleCall& call) {
  const TensorChannels& input = call.operand(size_t{0});
  for (int64_t d = std::max<int64_t>(0, input.rank() - 2); d < input.rank(); ++d) {
    call.freeze(input.labels[d], "is a side of a triangle");
  }
  call.give(input);
}

// The last dimensions are places, as many as the operator's name says.
void neighbourhood(RuleCall& call) {
  const std::string name = base_name(call.node.op());
  const size_t mark = name.find_first_of("123");
  const int64_t places = mark == std::string::npos ? 2 : name[mark] - '0';
  const TensorChannels& input = call.operand(size_t{0});
  const int64_t channels = input.rank() - places;
  for (int64_t d = std::max<int64_t>(0, channels); d < input.rank(); ++d) {
    call.freeze(input.labels[d], "is a dimension of places");
  }
  for (size_t i = 0; i < call.results(); ++i) {
    TensorChannels result;
    for (int64_t d = 0; d < input.rank(); ++d) {
      if (d < channels) {
        result.add(input.labels[d], input.zero[d]);
      } else {
        result.add(call.labels.stays(call.sizes(i).at(d)), false);
      }
    }
    call.give(std::move(result), i);
  }
}

}  // namespace

void add_reduction_rules(ChannelRules& rules) {
  for (const char* op : {"sum", "nansum"}) rules[op] = sum;
  for (const char* op : {"linalg_vector_norm", "norm.ScalarOpt_dim", "norm.ScalarOpt_dim_dtype"}) {
    rules[op] = norm;
  }
  for (const char* op : {"mean", "var", "std", "var_mean", "std_mean"}) rules[op] = average;
  for (const char* op :
       {"amax", "amin", "max.dim", "min.dim", "max", "min", "prod", "prod.dim_int", "logsumexp",
        "argmax", "argmin", "any", "any.dim", "any.dims", "all", "all.dim", "median.dim"}) {
    rules[op] = choose;
  }
  for (const char* op :
       {"softmax.int", "_softmax", "log_softmax.int", "_log_softmax", "softmin.int", "cumsum",
        "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "argsort", "topk"}) {
    rules[op] = along;
  }
  for (const char* op : {"tril", "triu"}) rules[op] = triangle;
  for (const char* op : {"max_pool1d",
                         "max_pool2d",
                         "max_pool3d",
                         "avg_pool1d",
                         "avg_pool2d",
                         "avg_pool3d",
                         "adaptive_avg_pool1d",
                         "adaptive_avg_pool2d",
                         "adaptive_avg_pool3d",
                         "adaptive_max_pool1d",
                         "adaptive_max_pool2d",
                         "adaptive_max_pool3d",
                         "max_pool1d_with_indices",
                         "max_pool2d_with_indices",
                         "max_pool3d_with_indices",
                         "upsample_nearest1d",
                         "upsample_nearest2d",
                         "upsample_nearest3d",
                         "upsample_linear1d",
                         "upsample_bilinear2d",
                         "upsample_bicubic2d",
                         "upsample_trilinear3d",
                         "_upsample_nearest_exact1d",
                         "_upsample_nearest_exact2d",
                         "_upsample_nearest_exact3d",
                         "_upsample_bilinear2d_aa",
                         "_upsample_bicubic2d_aa",
                         "reflection_pad1d",
                         "reflection_pad2d",
                         "reflection_pad3d",
                         "replication_pad1d",
                         "replication_pad2d",
                         "replication_pad3d"}) {
    rules[op] = neighbourhood;
  }
}

}  // namespace compress
