// Operators that multiply and add up: linear layers, matrix products, convolutions, embeddings.

#include "compress/graph/channels_rules.h"

#include <algorithm>
#include <map>

namespace compress {
namespace {

constexpr const char* kPlace = "is a dimension of places";

void linear(RuleCall& call) {
  const TensorChannels &input = call.operand("input"), &weight = call.operand("weight");
  const TensorChannels* bias = call.find("bias");
  call.contract(input, input.rank() - 1, weight, weight.rank() - 1);
  TensorChannels result;
  for (int64_t d = 0; d + 1 < input.rank(); ++d) {
    result.add(input.labels[d], input.zero[d] && bias == nullptr);
  }
  if (weight.rank() == 2) {
    if (bias != nullptr) call.join(weight.labels[0], bias->labels.back());
    result.add(weight.labels[0], weight.zero[0] && (bias == nullptr || bias->zero.back()));
  }
  call.give(std::move(result));
}

// a[.., m, k] times b[.., k, n], with a vector on either side if the rank is 1.
TensorChannels product(RuleCall& call, const TensorChannels& a, const TensorChannels& b,
                       const std::vector<int64_t>& sizes) {
  if (a.rank() == 0 || b.rank() == 0) throw NoChannelRule{"multiplies scalars"};
  call.contract(a, a.rank() - 1, b, std::max<int64_t>(0, b.rank() - 2));
  const int64_t kept = (a.rank() > 1) + (b.rank() > 1);
  const auto leading = [](const TensorChannels& matrix) {
    TensorChannels front;
    for (int64_t d = 0; d + 2 < matrix.rank(); ++d) front.add(matrix.labels[d], matrix.zero[d]);
    return front;
  };
  const TensorChannels a_front = leading(a), b_front = leading(b);
  TensorChannels result = call.broadcast(
      {&a_front, &b_front}, {sizes.begin(), sizes.end() - static_cast<std::ptrdiff_t>(kept)});
  for (const TensorChannels* front : {&a_front, &b_front}) {
    for (int64_t d = 0; d < front->rank(); ++d) {
      if (front->zero[d] && front->size(d) > 1) {
        result.zero[d + result.rank() - front->rank()] = true;
      }
    }
  }
  if (a.rank() > 1) result.add(a.labels[a.rank() - 2], a.zero[a.rank() - 2]);
  if (b.rank() > 1) result.add(b.labels[b.rank() - 1], b.zero[b.rank() - 1]);
  return result;
}

void matmul(RuleCall& call) {
  const TensorChannels &a = call.operand(size_t{0}), &b = call.operand(size_t{1});
  call.give(product(call, a, b, call.sizes()));
}

// The sum of a matrix product and a third operand.
void matmul_and_add(RuleCall& call) {
  const TensorChannels &added = call.operand(size_t{0}), &a = call.operand(size_t{1}),
                       &b = call.operand(size_t{2});
  TensorChannels result = product(call, a, b, call.sizes());
  const std::vector<bool> zero = result.zero;
  result = call.broadcast({&result, &added}, call.sizes());
  for (int64_t d = 0; d < result.rank(); ++d) {
    const int64_t own = d - result.rank() + added.rank();
    result.zero[d] = zero[d] && own >= 0 && added.size(own) > 1 && added.zero[own];
  }
  call.give(std::move(result));
}

// The input, with or without a batch, and the dimension of its channels.
int64_t channel_dim(const TensorChannels& input, const TensorChannels& weight) {
  return input.rank() - (weight.rank() - 1);
}

TensorChannels places(RuleCall& call, const TensorChannels& input, int64_t channel, Labels out,
                      bool is_zero) {
  TensorChannels result;
  for (int64_t d = 0; d < input.rank(); ++d) {
    if (d < channel) {
      result.add(input.labels[d], false);
    } else if (d == channel) {
      result.add(out, is_zero);
    } else {
      call.freeze(input.labels[d], kPlace);
      result.add(call.labels.stays(call.sizes().at(d)), false);
    }
  }
  return result;
}

bool join_bias(RuleCall& call, const Labels& out) {
  const TensorChannels* bias = call.find("bias");
  if (bias == nullptr) return true;
  call.join(out, bias->labels.at(0));
  return bias->zero.at(0);
}

void freeze_kernel(RuleCall& call, const TensorChannels& weight) {
  for (int64_t d = 2; d < weight.rank(); ++d) call.freeze(weight.labels[d], kKernelSide);
}

// Groups and what lies within one: in = (group, inner), out = (group, offset).
Labels fresh_groups(RuleCall& call, const Labels& flat, int64_t groups, const Labels& inner) {
  if (inner->size() == 1) return flat;
  const Labels group = call.labels.fresh(groups);
  call.labels.relate(flat, {group, inner});
  return group;
}

void convolution(RuleCall& call) {
  const TensorChannels &input = call.operand("input"), &weight = call.operand("weight");
  const int64_t channel = channel_dim(input, weight), groups = call.integer("groups");
  freeze_kernel(call, weight);
  if (groups == 1) {
    call.contract(input, channel, weight, 1);
  } else {
    const Labels group = fresh_groups(call, input.labels.at(channel), groups, weight.labels[1]);
    const int64_t outputs = weight.size(0) / groups;
    if (outputs == 1) {
      call.join(weight.labels[0], group);
    } else {
      call.labels.relate(weight.labels[0], {group, call.labels.fresh(outputs)});
    }
  }
  const bool is_zero = join_bias(call, weight.labels[0]) && weight.zero[0];
  call.give(places(call, input, channel, weight.labels[0], is_zero));
}

// The weight is [in, out / groups, kernel].
void transposed_convolution(RuleCall& call) {
  const TensorChannels &input = call.operand("input"), &weight = call.operand("weight");
  const int64_t channel = channel_dim(input, weight), groups = call.integer("groups");
  freeze_kernel(call, weight);
  call.contract(input, channel, weight, 0);
  Labels out = weight.labels[1];
  if (groups > 1) {
    const int64_t inputs = weight.size(0) / groups;
    Labels group = weight.labels[0];
    if (inputs > 1) group = call.labels.split(weight.labels[0], {groups, inputs}).front();
    out = call.labels.merge({group, weight.labels[1]});
  }
  const bool is_zero = join_bias(call, out) && weight.zero[1];
  call.give(places(call, input, channel, out, is_zero));
}

void bilinear(RuleCall& call) {
  const TensorChannels &a = call.operand("input1"), &b = call.operand("input2"),
                       &weight = call.operand("weight");
  call.contract(a, a.rank() - 1, weight, 1);
  call.contract(b, b.rank() - 1, weight, 2);
  TensorChannels front;
  for (int64_t d = 0; d + 1 < a.rank(); ++d) {
    call.join(a.labels[d], b.labels.at(d));
    front.add(a.labels[d], false);
  }
  front.add(weight.labels[0], join_bias(call, weight.labels[0]));
  call.give(std::move(front));
}

// [.., heads, queries, e] with keys [.., heads, keys, e] and values [.., heads, keys, f].
void attention(RuleCall& call) {
  const TensorChannels query = call.operand("query"), key = call.operand("key"),
                       value = call.operand("value");
  const int64_t rank = query.rank();
  if (rank < 2 || key.rank() != rank || value.rank() != rank) {
    throw NoChannelRule{"has operands of different ranks"};
  }
  TensorChannels result = query;
  result.zero.assign(result.zero.size(), false);
  call.contract(query, rank - 1, key, rank - 1);
  call.join(key.labels[rank - 2], value.labels[rank - 2]);
  call.freeze(key.labels[rank - 2], "is what attention chooses from");
  if (call.flag("is_causal")) call.freeze(query.labels[rank - 2], "counts the past");
  for (int64_t d = 0; d + 2 < rank; ++d) {
    call.join(key.labels[d], value.labels[d]);
    if (query.size(d) == key.size(d)) {
      call.join(query.labels[d], key.labels[d]);
      result.zero[d] = value.zero[d];
    } else if (query.size(d) % key.size(d) == 0) {  // enable_gqa: several queries a key
      call.labels.relate(query.labels[d],
                         {key.labels[d], call.labels.fresh(query.size(d) / key.size(d))});
    } else {
      throw NoChannelRule{"has operands whose heads do not fit"};
    }
  }
  if (const TensorChannels* mask = call.find("attn_mask")) {
    TensorChannels scores = result;
    scores.labels[rank - 1] = key.labels[rank - 2];
    std::vector<int64_t> sizes;
    for (int64_t d = 0; d < rank; ++d) sizes.push_back(scores.size(d));
    call.broadcast({&scores, mask}, sizes);
  }
  result.labels[rank - 1] = value.labels[rank - 1];
  result.zero[rank - 1] = value.zero[rank - 1];
  call.give(std::move(result));
}

void embedding(RuleCall& call) {
  const TensorChannels &weight = call.operand("weight"), &indices = call.operand("indices");
  call.freeze(weight.labels.at(0), "is indexed by data");
  call.freeze(indices, "holds indices");
  TensorChannels result;
  for (const Labels& labels : indices.labels) result.add(labels, false);
  result.add(weight.labels.at(1), weight.zero[1]);
  call.give(std::move(result));
}

// The letters of one operand of an equation; throws for what is more than letters.
std::string letters(const std::string& text) {
  std::string result;
  for (const char letter : text) {
    if (letter == ' ') continue;
    if (letter == '.' || result.find(letter) != std::string::npos) {
      throw NoChannelRule{"has an equation with repeated letters or dots"};
    }
    result += letter;
  }
  return result;
}

// Equal letters are equal channels; those that the result lacks are summed over.
void einsum(RuleCall& call) {
  const std::string equation = call.node.argument("equation").as<std::string>();
  const size_t arrow = equation.find("->");
  if (arrow == std::string::npos) throw NoChannelRule{"has an equation without a result"};
  const std::vector<const TensorChannels*> operands = call.list("tensors");
  std::map<char, Labels> of_letter;
  std::map<char, bool> zero;
  std::string left = equation.substr(0, arrow) + ",";
  for (const TensorChannels* operand : operands) {
    const size_t comma = left.find(',');
    if (comma == std::string::npos) throw NoChannelRule{"has an equation of fewer operands"};
    const std::string dims = letters(left.substr(0, comma));
    left.erase(0, comma + 1);
    for (size_t d = 0; d < dims.size(); ++d) {
      const Labels& labels = operand->labels.at(d);
      Labels& known = of_letter[dims[d]];
      if (known != nullptr && known->size() == labels->size()) call.join(known, labels);
      if (known == nullptr || known->size() == 1) known = labels;
      zero[dims[d]] = zero[dims[d]] || (operand->zero[d] && labels->size() > 1);
    }
  }
  TensorChannels result;
  const std::string out = letters(equation.substr(arrow + 2));
  for (const char letter : out) result.add(of_letter.at(letter), zero[letter]);
  for (const auto& [letter, labels] : of_letter) {
    if (out.find(letter) != std::string::npos || zero[letter]) continue;
    call.labels.mark_inexact(labels, &call.node, "sums what is not zero where channels go");
  }
  call.give(std::move(result));
}

}  // namespace

void add_contraction_rules(ChannelRules& rules) {
  rules["linear"] = linear;
  for (const char* op : {"matmul", "mm", "bmm", "mv"}) rules[op] = matmul;
  for (const char* op : {"addmm", "baddbmm"}) rules[op] = matmul_and_add;
  for (const char* op : {"conv1d", "conv2d", "conv3d"}) rules[op] = convolution;
  for (const char* op : {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}) {
    rules[op] = transposed_convolution;
  }
  rules["bilinear"] = bilinear;
  rules["scaled_dot_product_attention"] = attention;
  rules["embedding"] = embedding;
  rules["einsum"] = einsum;
}

}  // namespace compress
