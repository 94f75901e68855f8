// Operators that oneDNN has kernels for: what each becomes, and when it can.

#include "compress/engine/lowering.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace compress::engine {
namespace {

std::optional<double> number(const Argument& argument) {
  if (argument.is_int()) return static_cast<double>(argument.as<int64_t>());
  if (const double* value = std::get_if<double>(&argument.data())) return *value;
  return std::nullopt;
}

bool is_true(const Argument& argument) {
  const bool* flag = std::get_if<bool>(&argument.data());
  return flag != nullptr && *flag;
}

std::optional<std::vector<int64_t>> numbers(const Argument& argument) {
  if (!argument.is_list()) return std::nullopt;
  std::vector<int64_t> result;
  for (const Argument& element : argument.list()) {
    if (!element.is_int()) return std::nullopt;
    result.push_back(element.as<int64_t>());
  }
  return result;
}

PostOp clip(std::optional<double> low, std::optional<double> high) {
  const double none = std::numeric_limits<float>::infinity();
  return {PostOp::Kind::kClip, low.value_or(-none), high.value_or(none)};
}

bool ones(const std::vector<int64_t>& values) {
  return std::all_of(values.begin(), values.end(), [](int64_t value) { return value == 1; });
}

constexpr size_t kMostDimensions = 5;  // of a layer norm's kernel

// A 4-D slot whose two orders of memory are the same.
bool has_one_order(const Slot& slot) {
  return !slot.channels_last || slot.sizes[1] == 1 || slot.sizes[2] * slot.sizes[3] == 1;
}

}  // namespace

std::vector<int64_t> pair_of(const Argument& argument) {
  std::vector<int64_t> values = numbers(argument).value_or(std::vector<int64_t>{});
  if (values.size() == 1) values.push_back(values[0]);
  return values;
}

std::optional<PostOp> activation_of(const Node& node) {
  using Kind = PostOp::Kind;
  const std::string& op = node.op();
  if (op == "aten::relu") return PostOp{Kind::kRelu};
  if (op == "aten::relu6") return clip(0, 6);
  if (op == "aten::sigmoid") return PostOp{Kind::kSigmoid};
  if (op == "aten::tanh") return PostOp{Kind::kTanh};
  if (op == "aten::silu") return PostOp{Kind::kSilu};
  if (op == "aten::hardswish") return PostOp{Kind::kHardswish};
  if (op == "aten::leaky_relu") {
    return PostOp{Kind::kRelu, number(node.argument("negative_slope")).value_or(0.01)};
  }
  if (op == "aten::gelu") {
    const bool tanh = node.argument("approximate") == Argument("tanh");
    return PostOp{tanh ? Kind::kGeluTanh : Kind::kGelu};
  }
  if (op == "aten::elu") {
    if (number(node.argument("scale")) != 1 || number(node.argument("input_scale")) != 1) return {};
    return PostOp{Kind::kElu, number(node.argument("alpha")).value_or(1)};
  }
  if (op == "aten::hardtanh") {
    return clip(number(node.argument("min_val")), number(node.argument("max_val")));
  }
  if (op == "aten::clamp") {
    if (node.argument("min").is_value() || node.argument("max").is_value()) return {};
    const auto low = number(node.argument("min")), high = number(node.argument("max"));
    if (low && high && *low > *high) return {};  // all become `max`, which no kernel does
    return clip(low, high);
  }
  return std::nullopt;
}

std::optional<Grid> grid_of(const Node& node) {
  if (node.op() != "aten::fake_quantize_per_tensor_affine") return std::nullopt;
  const std::optional<double> scale = number(node.argument("scale"));
  const std::optional<double> zero_point = number(node.argument("zero_point"));
  const std::optional<double> low = number(node.argument("quant_min"));
  const std::optional<double> high = number(node.argument("quant_max"));
  if (!scale || !zero_point || !low || !high) return std::nullopt;
  const Grid grid{*scale, static_cast<int64_t>(*zero_point), static_cast<int64_t>(*low),
                  static_cast<int64_t>(*high)};
  const bool fits = (grid.low >= 0 && grid.high <= 255) || (grid.low >= -128 && grid.high <= 127);
  const bool holds_zero = grid.low <= grid.zero_point && grid.zero_point <= grid.high;
  return fits && holds_zero && grid.scale > 0 ? std::optional(grid) : std::nullopt;
}

bool Lowering::lower_convolution(const Node& node) {
  const bool general = node.op() == "aten::convolution";
  if (!general && node.op() != "aten::conv2d") return false;
  if (general && is_true(node.argument("transposed"))) return false;
  const Value* input = node.arguments()[0].value();
  const Value* weight = node.arguments()[1].value();
  if (!weight || !is_constant(weight) || sizes_of(input).size() != 4) return false;
  const Value* bias = node.argument("bias").value();
  if (bias != nullptr && !is_constant(bias)) return false;
  Convolution convolution;
  convolution.groups = node.argument("groups").as<int64_t>();
  convolution.window = {{},
                        pair_of(node.argument("stride")),
                        pair_of(node.argument("padding")),
                        pair_of(node.argument("dilation"))};
  size_t source = in_order(slot_of(input), /*channels_last=*/true);
  std::optional<Affine> affine;
  if (program_.slots[source].grid) affine = integer_weights(node, *program_.slots[source].grid);
  const bool integers = affine.has_value();
  if (!integers) {
    source = as_float(input);
    affine = Affine{constant(node.arguments()[1]).to(at::kFloat), {}, {}};
  }
  affine->bias = constant(node.argument("bias"));
  convolution.window.kernel = {affine->weight.size(2), affine->weight.size(3)};
  Chain chain = grow(node, source, integers, /*channels_last=*/true);
  const std::vector<int64_t>& padding = convolution.window.padding;
  Step step = layer_step(node, std::move(*affine), chain, padding != std::vector<int64_t>{0, 0});
  convolution.affine = std::get<Linear>(step.work).affine;
  step.work = std::move(convolution);
  emit_layer(std::move(step), chain);
  return true;
}

bool Lowering::lower_linear(const Node& node) {
  const bool addmm = node.op() == "aten::addmm";
  const bool linear = node.op() == "aten::linear";
  const bool product = node.op() == "aten::mm" || node.op() == "aten::matmul";
  if (!addmm && !linear && !product) return false;
  const size_t first = addmm ? 1 : 0;
  const Value* input = node.arguments()[first].value();
  const Value* weight = node.arguments()[first + 1].value();
  if (!is_float_tensor(input) || !weight || !is_constant(weight)) return false;
  if (sizes_of(weight).size() != 2 || sizes_of(input).size() < 2) return false;
  const Argument bias = linear ? node.argument("bias") : addmm ? node.arguments()[0] : Argument();
  if (bias.is_value() && (!is_constant(bias.value()) || sizes_of(bias.value()).size() != 1)) {
    return false;
  }
  if (addmm && (number(node.argument("alpha")) != 1 || number(node.argument("beta")) != 1)) {
    return false;
  }
  size_t source = in_order(slot_of(input), /*channels_last=*/false);
  std::optional<Affine> affine;
  if (linear && program_.slots[source].grid) {
    affine = integer_weights(node, *program_.slots[source].grid);
  }
  const bool integers = affine.has_value();
  if (!integers) {
    source = as_float(input, /*channels_last=*/false);
    const int64_t rows = program_.slots[source].elements() / sizes_of(input).back();
    if (auto packed = linear ? packed_weights(node, rows) : std::nullopt) {
      const size_t output = output_slot(node.output(), std::nullopt, /*channels_last=*/false);
      emit({std::move(*packed), node.module_path, {source}, {output}, {}});
      return true;
    }
    const at::Tensor matrix = constant(node.arguments()[first + 1]).to(at::kFloat);
    affine = Affine{linear ? matrix : matrix.t(), {}, {}};
  }
  affine->bias = constant(bias);
  if (affine->bias.defined()) affine->bias = affine->bias.expand({affine->weight.size(0)});
  Chain chain = grow(node, source, integers, /*channels_last=*/false);
  emit_layer(layer_step(node, std::move(*affine), chain, /*padded=*/false), chain);
  return true;
}

bool Lowering::lower_pool(const Node& node) {
  const bool maximum = node.op() == "aten::max_pool2d";
  const bool adaptive = node.op() == "aten::adaptive_avg_pool2d";
  if (!maximum && !adaptive && node.op() != "aten::avg_pool2d") return false;
  const Value* input = node.arguments()[0].value();
  const std::vector<int64_t> in = sizes_of(input), out = sizes_of(node.output());
  if (in.size() != 4) return false;
  Pool pool{{}, maximum};
  if (adaptive) {
    if (ones({out[2], out[3]})) return false;  // a global average
    if (in[2] % out[2] != 0 || in[3] % out[3] != 0) return false;
    pool.window.kernel = pool.window.stride = {in[2] / out[2], in[3] / out[3]};
    pool.window.padding = {0, 0};
    pool.window.dilation = {1, 1};
  } else {
    pool.window.kernel = pair_of(node.argument("kernel_size"));
    pool.window.stride = pair_of(node.argument("stride"));
    if (pool.window.stride.empty()) pool.window.stride = pool.window.kernel;
    pool.window.padding = pair_of(node.argument("padding"));
    pool.window.dilation =
        maximum ? pair_of(node.argument("dilation")) : std::vector<int64_t>{1, 1};
    if (!maximum) {
      if (is_true(node.argument("ceil_mode"))) return false;
      if (!node.argument("divisor_override").is_none()) return false;
      pool.count_padding = is_true(node.argument("count_include_pad"));
    }
  }
  // The largest code is the code of the largest value; an average lies between codes.
  const size_t source = maximum ? in_order(slot_of(input), true) : as_float(input);
  const std::optional<Grid> grid = program_.slots[source].grid;
  const size_t output = output_slot(node.output(), grid, true);
  emit({pool, node.output()->name(), {source}, {output}, {}});
  return true;
}

bool Lowering::lower_global_average(const Node& node) {
  const Value* input = node.arguments()[0].value();
  const bool adaptive = node.op() == "aten::adaptive_avg_pool2d";
  if ((!adaptive && node.op() != "aten::mean.dim") || sizes_of(input).size() != 4) return false;
  if (adaptive && pair_of(node.argument("output_size")) != std::vector<int64_t>{1, 1}) return false;
  if (!adaptive) {
    std::set<int64_t> dims;
    for (const int64_t dim : numbers(node.argument("dim")).value_or(std::vector<int64_t>{})) {
      dims.insert(dim < 0 ? dim + 4 : dim);
    }
    if (dims != std::set<int64_t>{2, 3} || !node.argument("dtype").is_none()) return false;
  }
  const size_t source = in_order(slot_of(input), true);
  const size_t output = output_slot(node.output(), std::nullopt, true);
  emit({GlobalAverage{}, node.output()->name(), {source}, {output}, {}});
  return true;
}

bool Lowering::lower_view(const Node& node) {
  static const std::set<std::string> kViews = {
      "aten::view",    "aten::reshape",     "aten::_unsafe_view", "aten::flatten.using_ints",
      "aten::squeeze", "aten::squeeze.dim", "aten::squeeze.dims", "aten::unsqueeze"};
  const Value* input = node.arguments()[0].value();
  if (!kViews.contains(node.op()) || pending_values_.contains(input)) return false;
  size_t slot = slot_of(input);
  if (!has_one_order(program_.slots[slot])) slot = in_order(slot, false);
  alias_slot(node.output(), slot, /*channels_last=*/false);
  return true;
}

bool Lowering::lower_quantizer(const Node& node) {
  const std::optional<Grid> grid = arithmetic_.eight_bit ? grid_of(node) : std::nullopt;
  if (!grid) return false;
  const size_t source = slot_of(node.arguments()[0].value());
  const bool is_on_it = program_.slots[source].grid == grid;
  bind(node.output(), is_on_it ? source : quantized(source, *grid, node.output()->name()));
  return true;
}

bool Lowering::lower_activation(const Node& node) {
  const std::optional<PostOp> activation = activation_of(node);
  if (!activation) return false;
  const size_t source = as_float(node.arguments()[0].value());
  const size_t output = output_slot(node.output(), std::nullopt, true);
  emit({Elementwise{}, node.output()->name(), {source}, {output}, {*activation}});
  return true;
}

bool Lowering::lower_binary(const Node& node) {
  const bool multiply = node.op() == "aten::mul.Tensor";
  if (!multiply && node.op() != "aten::add.Tensor") return false;
  const Value* a = node.arguments()[0].value();
  const Value* b = node.arguments()[1].value();
  if (!is_float_tensor(b) || sizes_of(a) != sizes_of(b)) return false;
  if (!multiply && number(node.argument("alpha")) != 1) return false;
  const size_t first = as_float(a), second = as_float(b);
  const size_t output = output_slot(node.output(), std::nullopt, true);
  emit({Binary{multiply}, node.output()->name(), {first, second}, {output}, {}});
  return true;
}

bool Lowering::lower_layer_norm(const Node& node) {
  if (node.op() != "aten::layer_norm") return false;
  const Value* input = node.arguments()[0].value();
  const size_t rank = sizes_of(input).size();
  if (pair_of(node.argument("normalized_shape")).empty() ||
      node.argument("normalized_shape").list().size() != 1 || rank < 2 || rank > kMostDimensions) {
    return false;
  }
  for (const char* name : {"weight", "bias"}) {
    const Value* value = node.argument(name).value();
    if (value != nullptr && !is_constant(value)) return false;
  }
  const LayerNorm norm{constant(node.argument("weight")), constant(node.argument("bias")),
                       node.argument("eps").as<double>()};
  const size_t source = as_float(input, /*channels_last=*/false);
  const size_t output = output_slot(node.output(), std::nullopt, false);
  emit({norm, node.module_path, {source}, {output}, {}});
  return true;
}

bool Lowering::lower_batch_norm(const Node& node) {
  if (node.op() != "aten::batch_norm" || !has_constant_statistics(node)) return false;
  const Value* input = node.arguments()[0].value();
  if (sizes_of(input).size() != 4) return false;
  BatchNorm norm{constant(node.argument("running_mean")), constant(node.argument("running_var")),
                 constant(node.argument("weight")), constant(node.argument("bias")),
                 node.argument("eps").as<double>()};
  const size_t source = as_float(input);
  Step step{std::move(norm), node.module_path, {source}, {}, {}};
  const Value* end = node.output();
  const Node* next = only_user(end);
  if (next != nullptr && next->op() == "aten::relu") {
    step.post.push_back({PostOp::Kind::kRelu});
    end = next->output();
    done_.insert(next);
  }
  step.outputs = {output_slot(end, std::nullopt, true)};
  emit(std::move(step));
  return true;
}

bool Lowering::lower_softmax(const Node& node) {
  if (node.op() != "aten::softmax.int" && node.op() != "aten::_softmax") return false;
  const Value* input = node.arguments()[0].value();
  const auto rank = static_cast<int64_t>(sizes_of(input).size());
  const int64_t dim = node.argument("dim").as<int64_t>();
  const size_t source = as_float(input, /*channels_last=*/false);
  const size_t output = output_slot(node.output(), std::nullopt, false);
  emit({Softmax{dim < 0 ? dim + rank : dim}, node.output()->name(), {source}, {output}, {}});
  return true;
}

bool Lowering::lower_concat(const Node& node) {
  if (node.op() != "aten::cat" || !node.arguments()[0].is_list()) return false;
  std::vector<const Value*> parts;
  for (const Argument& part : node.arguments()[0].list()) {
    if (!is_float_tensor(part.value())) return false;
    parts.push_back(part.value());
  }
  const size_t rank = sizes_of(node.output()).size();
  for (const Value* part : parts) {
    if (sizes_of(part).size() != rank) return false;  // an empty tensor of one dimension
  }
  const int64_t dim = node.argument("dim").as<int64_t>();
  Step step{
      Concat{dim < 0 ? dim + static_cast<int64_t>(rank) : dim}, node.output()->name(), {}, {}, {}};
  const std::optional<Grid> grid = program_.slots[slot_of(parts.front())].grid;
  const bool one_grid = std::all_of(parts.begin(), parts.end(), [&](const Value* part) {
    return program_.slots[slot_of(part)].grid == grid;
  });
  for (const Value* part : parts) {
    step.inputs.push_back(one_grid && grid ? in_order(slot_of(part), true) : as_float(part));
  }
  step.outputs = {output_slot(node.output(), one_grid ? grid : std::nullopt, true)};
  emit(std::move(step));
  return true;
}

}  // namespace compress::engine
