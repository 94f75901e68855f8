// Pooling and resizing.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace compress::onnx {
namespace {

std::vector<int64_t> spread(std::vector<int64_t> numbers, size_t dimensions) {
  if (numbers.size() == 1) numbers.resize(dimensions, numbers[0]);
  return numbers;
}

template <size_t dimensions>
std::vector<Attribute> window(Call& call) {
  const std::vector<int64_t> kernel = spread(call.integers("kernel_size"), dimensions);
  std::vector<int64_t> stride = spread(call.integers("stride"), dimensions);
  if (stride.empty()) stride = kernel;
  std::vector<int64_t> pads = spread(call.integers("padding"), dimensions);
  pads.insert(pads.end(), pads.begin(), pads.begin() + dimensions);
  return {{"kernel_shape", kernel},
          {"strides", stride},
          {"pads", pads},
          {"ceil_mode", int64_t{call.flag("ceil_mode")}}};
}

// A sample without a batch gets one for the time of the call.
template <size_t dimensions>
void pooled(Call& call, const std::string& op, std::vector<Attribute> attributes) {
  const bool is_single = call.rank("self") == static_cast<int64_t>(dimensions) + 1;
  std::string x = call.input("self");
  if (is_single) x = call.unsqueeze(x, {0});
  x = call.emit(op, {x}, std::move(attributes));
  call.result(is_single ? call.squeeze(x, {0}) : x);
}

template <size_t dimensions>
void max_pool(Call& call) {
  std::vector<Attribute> attributes = window<dimensions>(call);
  attributes.push_back({"dilations", spread(call.integers("dilation"), dimensions)});
  pooled<dimensions>(call, "MaxPool", std::move(attributes));
}

template <size_t dimensions>
void average_pool(Call& call) {
  if (call.has("divisor_override")) call.refuse("an average with a divisor of its own");
  std::vector<Attribute> attributes = window<dimensions>(call);
  attributes.push_back({"count_include_pad", int64_t{call.flag("count_include_pad")}});
  pooled<dimensions>(call, "AveragePool", std::move(attributes));
}

// Row i averages (or not) the inputs floor(i * in / out) to ceil((i + 1) * in / out).
at::Tensor averaging(int64_t in, int64_t out) {
  at::Tensor matrix = at::zeros({out, in});
  for (int64_t i = 0; i < out; ++i) {
    const int64_t begin = i * in / out, end = ((i + 1) * in + out - 1) / out;
    matrix.slice(0, i, i + 1).slice(1, begin, end).fill_(1.0 / static_cast<double>(end - begin));
  }
  return matrix;
}

// Global where one number comes out, a window where sizes divide, else a product with a matrix of
// averages for each dimension.
template <size_t dimensions>
void adaptive_pool(Call& call, bool is_maximum) {
  const std::vector<Dim>& sizes = call.sizes("self");
  const size_t first = sizes.size() - dimensions;
  std::vector<int64_t> wanted;
  for (size_t i = first; i < sizes.size(); ++i) {
    wanted.push_back(call.fixed(call.out_sizes()[i], "the result of adaptive pooling"));
  }
  const auto is = [&](int64_t size) { return size == 1; };
  if (std::all_of(wanted.begin(), wanted.end(), is)) {
    return pooled<dimensions>(call, is_maximum ? "GlobalMaxPool" : "GlobalAveragePool", {});
  }
  std::vector<int64_t> present, kernel;
  bool divides = true;
  for (size_t i = 0; i < dimensions; ++i) {
    present.push_back(call.fixed(sizes[first + i], "adaptive pooling"));
    kernel.push_back(present[i] / wanted[i]);
    divides = divides && present[i] % wanted[i] == 0;
  }
  if (divides) {
    return pooled<dimensions>(call, is_maximum ? "MaxPool" : "AveragePool",
                              {{"kernel_shape", kernel}, {"strides", kernel}});
  }
  if (is_maximum || dimensions > 2) call.refuse("adaptive pooling of sizes that do not divide");
  std::string x = call.input("self");
  const auto matrix = [&](size_t i) {
    return averaging(present[i], wanted[i]).to(call.out_dtype());
  };
  x = call.emit("MatMul", {x, call.constant(matrix(dimensions - 1).t().contiguous())});
  if (dimensions == 2) x = call.emit("MatMul", {call.constant(matrix(0)), x});
  call.result(x);
}

template <size_t dimensions>
void adaptive_average(Call& call) {
  adaptive_pool<dimensions>(call, false);
}
template <size_t dimensions>
void adaptive_maximum(Call& call) {
  adaptive_pool<dimensions>(call, true);
}

// Batch and channels stay; `sizes` or `scales` are those of the image.
void resize(Call& call, std::vector<Attribute> attributes) {
  const std::string x = call.input("input");
  std::vector<double> factors;
  if (call.has("scale_factors")) {
    for (const Argument& factor : call.argument("scale_factors").list()) {
      factors.push_back(factor.as<double>());
    }
  }
  if (!factors.empty()) {
    std::vector<float> scales{1, 1};
    scales.insert(scales.end(), factors.begin(), factors.end());
    const std::string name = call.constant(at::tensor(scales, at::kFloat));
    return call.result(call.emit("Resize", {x, "", name}, std::move(attributes)));
  }
  std::vector<Size> sizes;
  for (int64_t i = 0; i < 2; ++i) sizes.push_back(call.size_of(x, call.sizes("input"), i));
  for (const Argument& size : call.argument("output_size").list()) sizes.push_back(call.size(size));
  call.result(call.emit("Resize", {x, "", "", call.shape(sizes)}, std::move(attributes)));
}

void resize_nearest(Call& call) {
  resize(call, {{"mode", "nearest"},
                {"coordinate_transformation_mode", "asymmetric"},
                {"nearest_mode", "floor"}});
}

void resize_smooth(Call& call, const std::string& mode) {
  const bool corners = call.flag("align_corners");
  std::vector<Attribute> attributes{
      {"mode", mode}, {"coordinate_transformation_mode", corners ? "align_corners" : "half_pixel"}};
  // Keys, "Cubic convolution interpolation for digital image processing", IEEE ASSP 1981, with the
  // a of LibTorch.
  if (mode == "cubic") attributes.push_back({"cubic_coeff_a", -0.75f});
  resize(call, std::move(attributes));
}

void resize_linear(Call& call) { resize_smooth(call, "linear"); }
void resize_cubic(Call& call) { resize_smooth(call, "cubic"); }

}  // namespace

Rules pool_rules() {
  return {{"aten::max_pool1d", max_pool<1>},
          {"aten::max_pool2d", max_pool<2>},
          {"aten::max_pool3d", max_pool<3>},
          {"aten::avg_pool1d", average_pool<1>},
          {"aten::avg_pool2d", average_pool<2>},
          {"aten::avg_pool3d", average_pool<3>},
          {"aten::adaptive_avg_pool1d", adaptive_average<1>},
          {"aten::adaptive_avg_pool2d", adaptive_average<2>},
          {"aten::adaptive_avg_pool3d", adaptive_average<3>},
          {"aten::adaptive_max_pool2d", adaptive_maximum<2>},
          {"aten::upsample_nearest1d.vec", resize_nearest},
          {"aten::upsample_nearest2d.vec", resize_nearest},
          {"aten::upsample_nearest3d.vec", resize_nearest},
          {"aten::upsample_linear1d.vec", resize_linear},
          {"aten::upsample_bilinear2d.vec", resize_linear},
          {"aten::upsample_trilinear3d.vec", resize_linear},
          {"aten::upsample_bicubic2d.vec", resize_cubic}};
}

}  // namespace compress::onnx
