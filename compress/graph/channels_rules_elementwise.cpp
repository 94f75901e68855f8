// Operators that treat each element alone: channels pass, and those of several operands are joined.

#include "compress/graph/channels_rules.h"

#include <array>

namespace compress {
namespace {

// Whether a constant argument is a number other than zero.
bool is_nonzero(const Argument& argument) {
  if (argument.is_int()) return argument.as<int64_t>() != 0;
  const double* number = std::get_if<double>(&argument.data());
  if (number != nullptr) return *number != 0;
  return argument.is_value() && argument.value()->kind() != ValueKind::kTensor;
}

bool argument_is_nonzero(const RuleCall& call, std::string_view name) {
  const std::optional<size_t> index = call.node.argument_index(name);
  return index && is_nonzero(call.node.arguments()[*index]);
}

void pass_on(RuleCall& call, bool keeps_zero) {
  TensorChannels channels = call.operand(size_t{0});
  if (!keeps_zero) channels.zero.assign(channels.zero.size(), false);
  for (size_t i = 0; i < call.results(); ++i) call.give(channels, i);
}

void keep_zero(RuleCall& call) { pass_on(call, true); }
void lose_zero(RuleCall& call) { pass_on(call, false); }

void like_other(RuleCall& call) {  // the second tensor gives its dtype only
  call.all();
  keep_zero(call);
}

void clamp(RuleCall& call) {
  const auto bound = [&](std::string_view name, double missing) {
    const std::optional<size_t> index = call.node.argument_index(name);
    if (!index || call.node.arguments()[*index].is_none()) return missing;
    const Argument& argument = call.node.arguments()[*index];
    if (argument.is_int()) return static_cast<double>(argument.as<int64_t>());
    const double* number = std::get_if<double>(&argument.data());
    return number == nullptr ? 1.0 : *number;  // unknown: as if zero were cut off
  };
  const bool hard = call.node.has_argument("min_val");
  const double low = bound(hard ? "min_val" : "min", -1), high = bound(hard ? "max_val" : "max", 1);
  pass_on(call, low <= 0 && high >= 0);
}

void power(RuleCall& call) {
  const Argument& exponent = call.node.argument("exponent");
  const double* number = std::get_if<double>(&exponent.data());
  const bool positive =
      (exponent.is_int() && exponent.as<int64_t>() > 0) || (number != nullptr && *number > 0);
  pass_on(call, positive);
}

void shift_by_scalar(RuleCall& call) { pass_on(call, !argument_is_nonzero(call, "other")); }
void fill(RuleCall& call) { pass_on(call, !argument_is_nonzero(call, "value")); }

// Which elements of a result are zero, from those of the operands.
enum class Zero { kAll, kAny, kFirst, kNever };

template <Zero zero>
void combine(RuleCall& call) {
  const std::vector<const TensorChannels*> operands = call.all();
  TensorChannels result = call.broadcast(operands, call.sizes());
  bool constant = false;
  for (const char* name : {"other", "value"}) constant |= argument_is_nonzero(call, name);
  for (int64_t d = 0; d < result.rank(); ++d) {
    size_t zeros = 0;
    bool first = false;
    for (size_t i = 0; i < operands.size(); ++i) {
      const int64_t own = d - result.rank() + operands[i]->rank();
      const bool is_zero = own >= 0 && operands[i]->size(own) > 1 && operands[i]->zero[own];
      zeros += is_zero;
      if (i == 0) first = is_zero;
    }
    result.zero[d] = (zero == Zero::kAll && !constant && zeros == operands.size()) ||
                     (zero == Zero::kAny && zeros > 0) || (zero == Zero::kFirst && first);
  }
  call.give(std::move(result));
}

void masked_fill(RuleCall& call) {
  if (argument_is_nonzero(call, "value")) return combine<Zero::kNever>(call);
  combine<Zero::kFirst>(call);
}

// The operand that shifts (`codes >> [0, 4]`) decides what the bits mean: it stays whole.
void bit_shift(RuleCall& call) {
  if (call.is_tensor("other")) call.freeze(call.operand("other"), "says by how much to shift");
  combine<Zero::kFirst>(call);
}

void prelu(RuleCall& call) {
  const TensorChannels& input = call.operand("self");
  const TensorChannels& weight = call.operand("weight");
  if (weight.rank() == 1 && weight.size(0) > 1 && input.rank() > 1) {
    call.join(input.labels[1], weight.labels[0]);
  }
  call.give(input);
}

// Steps and zero points go with the channels that they belong to.
void fake_quantize_channels(RuleCall& call) {
  const TensorChannels& input = call.operand("self");
  const int64_t axis = from_front(call.integer("axis"), input.rank());
  for (const char* name : {"scale", "zero_point"}) {
    call.join(input.labels[axis], call.operand(name).labels[0]);
  }
  call.give(input);
}

void glu(RuleCall& call) {
  TensorChannels channels = call.operand("self");
  const int64_t dim = from_front(call.integer("dim"), channels.rank());
  const std::vector<Label>& whole = *channels.labels.at(dim);
  const auto half = static_cast<std::ptrdiff_t>(whole.size() / 2);
  const auto first =
      std::make_shared<const std::vector<Label>>(whole.begin(), whole.begin() + half);
  const auto second = std::make_shared<const std::vector<Label>>(whole.begin() + half, whole.end());
  call.join(first, second);
  channels.labels[dim] = first;
  call.give(std::move(channels));
}

void no_effect(RuleCall& call) { call.all(); }

// A size that is read may be used for anything.
void read_size(RuleCall& call) {
  const TensorChannels& channels = call.operand("self");
  const int64_t dim = from_front(call.integer("dim"), channels.rank());
  call.freeze(channels.labels.at(dim), "has its size read");
}

}  // namespace

void add_elementwise_rules(ChannelRules& rules) {
  // f(0) = 0.
  for (const char* op : {"relu",
                         "relu6",
                         "gelu",
                         "silu",
                         "mish",
                         "tanh",
                         "elu",
                         "selu",
                         "celu",
                         "leaky_relu",
                         "hardswish",
                         "softsign",
                         "hardshrink",
                         "softshrink",
                         "tanhshrink",
                         "abs",
                         "absolute",
                         "neg",
                         "negative",
                         "sin",
                         "asin",
                         "tan",
                         "atan",
                         "sinh",
                         "sqrt",
                         "square",
                         "sign",
                         "floor",
                         "ceil",
                         "round",
                         "trunc",
                         "expm1",
                         "log1p",
                         "erf",
                         "dropout",
                         "alpha_dropout",
                         "feature_dropout",
                         "contiguous",
                         "clone",
                         "alias",
                         "detach",
                         "lift_fresh",
                         "lift_fresh_copy",
                         "_to_copy",
                         "to",
                         "positive",
                         "zeros_like",
                         "nan_to_num",
                         "fake_quantize_per_tensor_affine",
                         "_fake_quantize_learnable_per_tensor_affine",
                         "native_dropout",
                         "mul.Scalar",
                         "div.Scalar",
                         "bitwise_and.Scalar",
                         "__and__.Scalar",
                         "float",
                         "int",
                         "view.dtype",
                         "rrelu"}) {
    rules[op] = keep_zero;
  }
  for (const char* op : {"sigmoid",      "log_sigmoid", "logsigmoid",
                         "hardsigmoid",  "exp",         "exp2",
                         "log",          "log2",        "log10",
                         "rsqrt",        "reciprocal",  "cos",
                         "cosh",         "acos",        "softplus",
                         "erfinv",       "logit",       "eq.Scalar",
                         "ne.Scalar",    "ge.Scalar",   "gt.Scalar",
                         "le.Scalar",    "lt.Scalar",   "isnan",
                         "isinf",        "isfinite",    "logical_not",
                         "bitwise_not",  "ones_like",   "full_like",
                         "rand_like",    "randn_like",  "empty_like",
                         "bernoulli",    "rsub.Scalar", "remainder.Scalar",
                         "fmod.Scalar",  "pow.Scalar",  "where.ScalarOther",
                         "__or__.Scalar"}) {
    rules[op] = lose_zero;
  }
  for (const char* op : {"to.other", "type_as"}) rules[op] = like_other;
  for (const char* op : {"clamp", "clamp_min", "clamp_max", "hardtanh"}) rules[op] = clamp;
  for (const char* op : {"clamp.Tensor"}) rules[op] = combine<Zero::kNever>;
  rules["pow.Tensor_Scalar"] = power;
  for (const char* op : {"add.Scalar", "sub.Scalar"}) rules[op] = shift_by_scalar;
  for (const char* op : {"fill.Scalar"}) rules[op] = fill;
  for (const char* op : {"add.Tensor", "sub.Tensor", "subtract.Tensor", "maximum", "minimum",
                         "max.other", "min.other", "bitwise_or.Tensor", "__or__.Tensor"}) {
    rules[op] = combine<Zero::kAll>;
  }
  for (const char* op : {"mul.Tensor", "multiply.Tensor", "logical_and", "bitwise_and.Tensor",
                         "__and__.Tensor", "_weight_norm"}) {
    rules[op] = combine<Zero::kAny>;
  }
  for (const char* op : {"div.Tensor", "div.Tensor_mode", "divide.Tensor", "true_divide.Tensor",
                         "floor_divide", "remainder.Tensor", "fmod.Tensor"}) {
    rules[op] = combine<Zero::kFirst>;
  }
  rules["masked_fill.Scalar"] = masked_fill;
  for (const char* op : {"eq.Tensor",         "ne.Tensor",   "ge.Tensor",
                         "gt.Tensor",         "le.Tensor",   "lt.Tensor",
                         "logical_or",        "logical_xor", "bitwise_xor.Tensor",
                         "pow.Tensor_Tensor", "atan2",       "addcmul",
                         "addcdiv",           "where.self",  "lerp.Scalar",
                         "lerp.Tensor",       "rsub.Tensor", "masked_fill.Tensor",
                         "where.ScalarSelf",  "where.Scalar"}) {
    rules[op] = combine<Zero::kNever>;
  }
  for (const char* op : {"__rshift__.Tensor", "__lshift__.Tensor", "bitwise_right_shift.Tensor",
                         "bitwise_left_shift.Tensor"}) {
    rules[op] = bit_shift;
  }
  for (const char* op : {"__rshift__.Scalar", "__lshift__.Scalar"}) rules[op] = keep_zero;
  for (const char* op :
       {"fake_quantize_per_channel_affine", "_fake_quantize_learnable_per_channel_affine"}) {
    rules[op] = fake_quantize_channels;
  }
  rules["prelu"] = prelu;
  rules["glu"] = glu;
  rules["sym_size.int"] = read_size;
  for (const char* op : {"_assert_tensor_metadata", "_assert_scalar", "sym_numel"}) {
    rules[op] = no_effect;
  }
}

}  // namespace compress
