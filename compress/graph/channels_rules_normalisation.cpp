// Normalisations: their parameters go with the channels; statistics over channels change with them.

#include "compress/graph/channels_rules.h"

namespace compress {
namespace {

constexpr const char* kStatistic = "takes statistics over channels";

// Joins per-channel parameters with a dimension; whether scale and shift are both there, so that
// masked channels leave as zeros.
bool join_parameters(RuleCall& call, const Labels& channels,
                     std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const TensorChannels* parameter = call.find(name)) {
      call.join(channels, parameter->labels.at(0));
    }
  }
  return call.is_tensor("weight") && call.is_tensor("bias");
}

void batch_norm(RuleCall& call) {
  TensorChannels channels = call.operand("input");
  const int64_t dim = channels.rank() > 1 ? 1 : 0;
  const bool affine = join_parameters(call, channels.labels.at(dim),
                                      {"weight", "bias", "running_mean", "running_var"});
  const bool uses_batch = call.flag("training") || call.flag("use_input_stats");
  for (int64_t d = 0; d < channels.rank(); ++d) {
    if (d == dim) {
      channels.zero[d] = affine || channels.zero[d];
    } else {
      if (uses_batch) call.labels.mark_inexact(channels.labels[d], &call.node, kStatistic);
      channels.zero[d] = false;
    }
  }
  call.give(std::move(channels));
}

void layer_norm(RuleCall& call) {
  TensorChannels channels = call.operand("input");
  const auto normalized = static_cast<int64_t>(call.integers("normalized_shape").size());
  const int64_t first = channels.rank() - normalized;
  if (first < 0) throw NoChannelRule{"normalises more dimensions than there are"};
  const TensorChannels *weight = call.find("weight"), *bias = call.find("bias");
  const bool centres = call.node.has_argument("bias");
  for (int64_t d = 0; d < channels.rank(); ++d) {
    if (d < first) {
      channels.zero[d] = channels.zero[d] && bias == nullptr;
      continue;
    }
    if (weight != nullptr) call.join(channels.labels[d], weight->labels.at(d - first));
    if (bias != nullptr) call.join(channels.labels[d], bias->labels.at(d - first));
    call.labels.mark_inexact(channels.labels[d], &call.node, kStatistic);
    channels.zero[d] =
        (weight != nullptr && (bias != nullptr || !centres)) || (!centres && channels.zero[d]);
  }
  call.give(std::move(channels));
}

void group_norm(RuleCall& call) {
  TensorChannels channels = call.operand("input");
  const int64_t groups = call.integer("num_groups");
  const Labels& dim = channels.labels.at(1);
  const bool affine = join_parameters(call, dim, {"weight", "bias"});
  const std::vector<Labels> factors = call.labels.split(dim, {groups, channels.size(1) / groups});
  // A whole group takes its statistics with it; a part of one does not.
  call.labels.mark_inexact(factors[1], &call.node, kStatistic);
  for (int64_t d = 2; d < channels.rank(); ++d) {
    call.labels.mark_inexact(channels.labels[d], &call.node, kStatistic);
  }
  channels.zero.assign(channels.zero.size(), false);
  channels.zero[1] = affine;
  call.give(std::move(channels));
}

}  // namespace

void add_normalisation_rules(ChannelRules& rules) {
  for (const char* op : {"batch_norm", "instance_norm"}) rules[op] = batch_norm;
  for (const char* op : {"layer_norm", "rms_norm"}) rules[op] = layer_norm;
  rules["group_norm"] = group_norm;
}

}  // namespace compress
