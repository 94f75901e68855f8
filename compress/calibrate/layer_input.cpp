// Patches by strided views; one copy when they are laid out as rows.

#include "compress/calibrate/layer_input.h"

#include "compress/error.h"
#include "compress/graph/graph.h"
#include "compress/selector.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/constant_pad_nd.h>

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace compress {
namespace {

constexpr int64_t kChunkBytes = 16 << 20;  // of patches that are laid out at a time

// The arguments of a convolution, one number a spatial dimension.
struct Window {
  std::vector<int64_t> kernel, stride, dilation, before, after;  // padding before and after
  int64_t groups = 1;
  size_t dims() const { return kernel.size(); }
};

std::vector<int64_t> spread(const Argument& argument, size_t dims) {
  std::vector<int64_t> numbers = argument.ints();
  if (numbers.size() == 1) numbers.resize(dims, numbers[0]);
  return numbers;
}

Window window_of(const Node& layer) {
  const Value* weight = layer.argument("weight").value();
  COMPRESS_CHECK(weight != nullptr && weight->type.sizes, "a convolution's weight has sizes");
  Window window;
  for (size_t i = 2; i < weight->type.sizes->size(); ++i) {
    window.kernel.push_back((*weight->type.sizes)[i].size);
  }
  const size_t dims = window.dims();
  window.stride = spread(layer.argument("stride"), dims);
  window.dilation = spread(layer.argument("dilation"), dims);
  window.groups = layer.argument("groups").as<int64_t>();
  const Argument& padding = layer.argument("padding");
  if (const auto* mode = std::get_if<std::string>(&padding.data())) {
    for (size_t i = 0; i < dims; ++i) {
      const int64_t total = *mode == "same" ? window.dilation[i] * (window.kernel[i] - 1) : 0;
      window.before.push_back(total / 2);
      window.after.push_back(total - total / 2);
    }
  } else {
    window.before = window.after = spread(padding, dims);
  }
  return window;
}

// [groups, rows, columns] of samples [n, channels, ...].
at::Tensor patches(const at::Tensor& samples, const Window& window) {
  std::vector<int64_t> margins;
  for (size_t i = window.dims(); i-- > 0;) {
    margins.push_back(window.before[i]);
    margins.push_back(window.after[i]);
  }
  const bool pads = std::any_of(margins.begin(), margins.end(), [](int64_t m) { return m != 0; });
  at::Tensor x = pads ? at::constant_pad_nd(samples, margins) : samples;
  const auto dims = static_cast<int64_t>(window.dims());
  for (int64_t i = 0; i < dims; ++i) {
    const int64_t reach = (window.kernel[i] - 1) * window.dilation[i] + 1;
    x = x.unfold(2 + i, reach, window.stride[i]).slice(-1, 0, reach, window.dilation[i]);
  }
  // [n, channels, positions..., kernel...] -> [groups, n, positions..., channels / groups,
  // kernel...]
  x = x.unflatten(1, {window.groups, x.size(1) / window.groups});
  std::vector<int64_t> order{1, 0};
  for (int64_t i = 0; i < dims; ++i) order.push_back(3 + i);
  order.push_back(2);
  for (int64_t i = 0; i < dims; ++i) order.push_back(3 + dims + i);
  int64_t columns = x.size(2);
  for (const int64_t size : window.kernel) columns *= size;
  return x.permute(order).reshape({window.groups, -1, columns});
}

bool is_conv(const Node& layer) { return operator_kind(layer) == OperatorKind::kConv; }

// Samples of a convolution with their batch dimension.
at::Tensor batched(const at::Tensor& input, const Window& window) {
  return input.dim() == static_cast<int64_t>(window.dims()) + 1 ? input.unsqueeze(0) : input;
}

}  // namespace

bool has_layer_input_matrix(const Node& layer) {
  const std::string_view op = layer.op();
  if (op == "aten::linear" || op == "aten::addmm" || op == "aten::mm" || op == "aten::matmul") {
    const Value* input = layer_input(layer);
    return input != nullptr && !input->is_named_tensor();
  }
  if (!is_conv(layer) || op.starts_with("aten::conv_transpose")) return false;
  if (layer.has_argument("transposed") && layer.argument("transposed").as<bool>()) return false;
  const Value* weight = layer.argument("weight").value();
  return weight != nullptr && weight->type.sizes.has_value();
}

Value* layer_input(const Node& layer) {
  return layer.arguments().at(layer.op() == "aten::addmm" ? 1 : 0).value();
}

at::Tensor layer_input_matrix(const Node& layer, const at::Tensor& input) {
  if (!is_conv(layer)) return input.reshape({1, -1, input.size(-1)});
  const Window window = window_of(layer);
  return patches(batched(input, window), window);
}

void Gram::add(const Node& layer, const at::Tensor& input) { add(layer, input, input); }

void Gram::add(const Node& layer, const at::Tensor& left, const at::Tensor& input) {
  const bool same = left.is_same(input);
  const auto accumulate = [&](const at::Tensor& z, const at::Tensor& x) {
    const at::Tensor products = at::bmm(z.transpose(1, 2), x).to(at::kDouble);
    sum = sum.defined() ? sum.add_(products) : products;
    rows += x.size(1);
  };
  const at::Tensor values = input.detach().to(at::kFloat);
  const at::Tensor left_values = same ? values : left.detach().to(at::kFloat);
  if (!is_conv(layer)) {
    accumulate(layer_input_matrix(layer, left_values), layer_input_matrix(layer, values));
    return;
  }
  const Window window = window_of(layer);
  const at::Tensor samples = batched(values, window), left_samples = batched(left_values, window);
  int64_t copies = 1;
  for (const int64_t size : window.kernel) copies *= size;
  const int64_t bytes = samples[0].numel() * copies * static_cast<int64_t>(sizeof(float));
  const int64_t chunk = std::max<int64_t>(1, kChunkBytes / std::max<int64_t>(1, bytes));
  for (int64_t first = 0; first < samples.size(0); first += chunk) {
    const int64_t count = std::min(chunk, samples.size(0) - first);
    const at::Tensor x = patches(samples.narrow(0, first, count), window);
    accumulate(same ? x : patches(left_samples.narrow(0, first, count), window), x);
  }
}

at::Tensor Gram::mean() const { return sum / static_cast<double>(std::max<int64_t>(rows, 1)); }

}  // namespace compress
