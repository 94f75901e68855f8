// Convolutions, linear layers, matrix products.

#include "compress/io/onnx/quantized.h"
#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <algorithm>

namespace compress::onnx {
namespace {

// One number for each spatial dimension.
std::vector<int64_t> spread(std::vector<int64_t> numbers, size_t dimensions) {
  if (numbers.size() == 1) numbers.resize(dimensions, numbers[0]);
  return numbers;
}

// Begin and end of each dimension, as ONNX has them.
std::vector<int64_t> both_ends(const std::vector<int64_t>& padding) {
  std::vector<int64_t> pads = padding;
  pads.insert(pads.end(), padding.begin(), padding.end());
  return pads;
}

// LibTorch puts what is left over of `same` at the end.
std::vector<int64_t> same_padding(const std::vector<int64_t>& kernel,
                                  const std::vector<int64_t>& dilation) {
  std::vector<int64_t> begin, end;
  for (size_t i = 0; i < kernel.size(); ++i) {
    const int64_t total = dilation[i] * (kernel[i] - 1);
    begin.push_back(total / 2);
    end.push_back(total - total / 2);
  }
  begin.insert(begin.end(), end.begin(), end.end());
  return begin;
}

// A sample without a batch gets one for the time of the call.
void with_batch(Call& call, bool is_single, const std::string& op, std::vector<std::string> inputs,
                std::vector<Attribute> attributes) {
  if (is_single) inputs[0] = call.unsqueeze(inputs[0], {0});
  const std::string out = call.emit(op, std::move(inputs), std::move(attributes));
  call.result(is_single ? call.squeeze(out, {0}) : out);
}

void convolve(Call& call, bool is_transposed) {
  const std::vector<Dim>& weight = call.sizes("weight");
  const size_t dimensions = weight.size() - 2;
  std::vector<int64_t> kernel;
  for (size_t i = 2; i < weight.size(); ++i) kernel.push_back(call.fixed(weight[i], "a kernel"));
  const std::vector<int64_t> dilation = spread(call.integers("dilation"), dimensions);
  std::vector<int64_t> pads(2 * dimensions, 0);
  if (std::holds_alternative<std::string>(call.argument("padding").data())) {
    if (call.text("padding") == "same") pads = same_padding(kernel, dilation);
  } else {
    pads = both_ends(spread(call.integers("padding"), dimensions));
  }
  std::vector<Attribute> attributes{{"kernel_shape", kernel},
                                    {"strides", spread(call.integers("stride"), dimensions)},
                                    {"pads", pads},
                                    {"dilations", dilation},
                                    {"group", call.integer("groups")}};
  if (is_transposed) {
    attributes.push_back({"output_padding", spread(call.integers("output_padding"), dimensions)});
  }
  const bool is_single = call.rank("input") == static_cast<int64_t>(weight.size()) - 1;
  with_batch(call, is_single, is_transposed ? "ConvTranspose" : "Conv",
             {call.input("input"), call.input("weight"), bias_of(call)}, std::move(attributes));
}

void convolution(Call& call) { convolve(call, call.has("transposed") && call.flag("transposed")); }
void transposed_convolution(Call& call) { convolve(call, true); }

// Gemm where the input is a matrix, which takes the weight as it is; else MatMul and Add.
void linear(Call& call) {
  const std::string x = call.input("input");
  if (call.rank("input") == 2 && call.rank("weight") == 2) {
    return call.result(
        call.emit("Gemm", {x, call.input("weight"), bias_of(call)}, {{"transB", int64_t{1}}}));
  }
  std::string weight;
  if (call.rank("weight") == 2) {
    weight = call.transposed_weight(call.argument("weight"));
  } else {
    weight = call.input("weight");
  }
  const std::string product = call.emit("MatMul", {x, weight});
  call.result(call.has("bias") ? call.emit("Add", {product, call.input("bias")}) : product);
}

void product(Call& call) {
  const auto& arguments = call.node().arguments();
  call.result(call.emit("MatMul", {call.tensor(arguments.at(0)), call.tensor(arguments.at(1))}));
}

// beta * self + alpha * a b.
void matrix_and_sum(Call& call) {
  const bool is_batched = call.has("batch1");
  const std::string a = call.input(is_batched ? "batch1" : "mat1");
  const std::string b = call.input(is_batched ? "batch2" : "mat2");
  const double alpha = call.number("alpha"), beta = call.number("beta");
  if (!is_batched && call.rank("self") <= 2) {
    return call.result(
        call.emit("Gemm", {a, b, call.input("self")},
                  {{"alpha", static_cast<float>(alpha)}, {"beta", static_cast<float>(beta)}}));
  }
  const c10::ScalarType dtype = call.out_dtype();
  std::string product = call.emit("MatMul", {a, b}), sum = call.input("self");
  if (alpha != 1) product = call.emit("Mul", {product, call.constant(alpha, dtype)});
  if (beta != 1) sum = call.emit("Mul", {sum, call.constant(beta, dtype)});
  call.result(call.emit("Add", {sum, product}));
}

void einsum(Call& call) {
  call.result(call.emit("Einsum", call.inputs("tensors"), {{"equation", call.text("equation")}}));
}

}  // namespace

Rules layer_rules() {
  return {{"aten::conv1d", convolution},
          {"aten::conv2d", convolution},
          {"aten::conv3d", convolution},
          {"aten::conv1d.padding", convolution},
          {"aten::conv2d.padding", convolution},
          {"aten::conv3d.padding", convolution},
          {"aten::convolution", convolution},
          {"aten::conv_transpose1d", transposed_convolution},
          {"aten::conv_transpose2d.input", transposed_convolution},
          {"aten::conv_transpose3d.input", transposed_convolution},
          {"aten::linear", linear},
          {"aten::mm", product},
          {"aten::bmm", product},
          {"aten::matmul", product},
          {"aten::addmm", matrix_and_sum},
          {"aten::baddbmm", matrix_and_sum},
          {"aten::einsum", einsum}};
}

}  // namespace compress::onnx
