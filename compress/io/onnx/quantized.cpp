// Quantized weights and biases as integers with DequantizeLinear.

#include "compress/io/onnx/quantized.h"

#include "compress/encoding_bits.h"
#include "compress/error.h"
#include "compress/io/onnx/translator.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <fmt/format.h>

#include <limits>

namespace compress::onnx {
namespace {

std::vector<int64_t> rows_first(const QuantizedTensor& quantized) {
  std::vector<int64_t> sizes = quantized.sizes;
  std::swap(sizes[0], sizes[static_cast<size_t>(quantized.channel_dim)]);
  return sizes;
}

// The codes as ONNX has them: around zero, or beside a zero point.
at::Tensor codes_of(const QuantizedTensor& quantized) {
  const at::Tensor codes = unpack_codes(quantized.fields, quantized.bits, quantized.columns());
  if (!quantized.symmetric()) return codes;
  return codes.to(at::kShort).sub_(quantized.offset()).to(at::kChar);
}

at::Tensor scales_of(const QuantizedTensor& quantized) {
  at::Tensor scale = quantized.scale.to(at::kFloat);
  if (quantized.global_scale.defined()) scale = scale * quantized.global_scale.to(at::kFloat);
  return scale.contiguous();
}

}  // namespace

Dequantization split(const QuantizedTensor& quantized, bool transposed) {
  Dequantization out;
  out.is_signed = quantized.symmetric();
  out.codes = codes_of(quantized);
  out.scale = scales_of(quantized);
  const bool one_scale = out.scale.numel() == 1;
  out.zero_point = quantized.symmetric() ? at::zeros_like(out.scale, at::kChar)
                                         : quantized.zero_point.to(at::kByte).contiguous();
  if (quantized.groups() == 1) {
    out.codes = from_matrix(out.codes, quantized.sizes, quantized.channel_dim).contiguous();
    out.axis = quantized.channel_dim;
    for (at::Tensor* part : {&out.scale, &out.zero_point}) {
      *part = one_scale ? part->reshape({}) : part->reshape({-1});
    }
    if (transposed) {
      out.codes = out.codes.t().contiguous();
      out.axis = 1 - out.axis;
    }
    return out;
  }
  out.axis = 1;
  out.block_size = quantized.group_size;
  for (at::Tensor* part : {&out.scale, &out.zero_point}) {
    *part = part->expand({quantized.rows(), quantized.groups()}).contiguous();
  }
  // A matrix whose rows are its columns is transposed as it stands.
  const bool is_matrix = quantized.sizes.size() == 2;
  const bool turn = is_matrix && transposed != (quantized.channel_dim == 1);
  if (turn) {
    for (at::Tensor* part : {&out.codes, &out.scale, &out.zero_point}) {
      *part = part->t().contiguous();
    }
    out.axis = 0;
  }
  if (!is_matrix) {
    out.sizes = rows_first(quantized);
    out.swapped = quantized.channel_dim;
  }
  return out;
}

at::Tensor pack_nibbles(const at::Tensor& codes) {
  const at::Tensor flat = codes.contiguous().view(-1);
  const int64_t count = flat.numel();
  at::Tensor packed = at::zeros({(count + 1) / 2}, at::kByte);
  const auto* in = static_cast<const uint8_t*>(flat.const_data_ptr());
  uint8_t* out = packed.mutable_data_ptr<uint8_t>();
  for (int64_t i = 0; i < count; ++i) {
    out[i / 2] = static_cast<uint8_t>(out[i / 2] | (in[i] & 15) << (i % 2 == 0 ? 0 : 4));
  }
  return packed;
}

std::string Translator::add_decoded(const EncodedWeight& weight, c10::ScalarType dtype,
                                    bool transposed) {
  const bool is_nibbles = weight.quantized.bits == 4 && out_.opset >= 21;
  const Dequantization how = split(weight.quantized, transposed);
  const auto add = [&](const std::string& suffix, const at::Tensor& tensor, bool is_codes) {
    const bool is_packed = is_nibbles && is_codes;
    const DataType small = how.is_signed ? DataType::kInt4 : DataType::kUint4;
    const at::Tensor stored = is_packed ? pack_nibbles(tensor) : tensor;
    return add_initializer(
        {weight.name + suffix, is_packed ? small : data_type(tensor.scalar_type()),
         tensor.sizes().vec(), static_cast<int64_t>(stored.nbytes()), [stored] { return stored; }});
  };
  std::vector<Attribute> attributes;
  if (how.scale.dim() > 0) attributes.push_back({"axis", how.axis});
  if (how.block_size > 0) attributes.push_back({"block_size", how.block_size});
  const std::vector<std::string> inputs{add("_codes", how.codes, true),
                                        add("_scale", how.scale, false),
                                        add("_zero_point", how.zero_point, true)};
  std::string name = emit("DequantizeLinear", inputs, std::move(attributes), 1)[0];
  if (!how.sizes.empty()) {
    name = emit("Reshape", {name, constant(at::tensor(how.sizes, at::kLong))}, {}, 1)[0];
  }
  if (how.swapped != 0) {
    std::vector<int64_t> order;
    for (int64_t i = 0; i < static_cast<int64_t>(how.sizes.size()); ++i) order.push_back(i);
    std::swap(order[0], order[static_cast<size_t>(how.swapped)]);
    name = emit("Transpose", {name}, {{"perm", order}}, 1)[0];
  }
  if (dtype != at::kFloat) {
    name = emit("Cast", {name}, {{"to", static_cast<int64_t>(data_type(dtype))}}, 1)[0];
  }
  return name;
}

namespace {

// The scale of an input that is fake-quantized to 8 bits, as the constant that it is.
std::optional<double> input_scale(const Call& call) {
  const Value* input = call.argument("input").value();
  const Node* node = input == nullptr ? nullptr : input->producer();
  if (node == nullptr || node->op() != "aten::fake_quantize_per_tensor_affine") return std::nullopt;
  return node->argument("scale").as<double>();
}

}  // namespace

std::string bias_of(Call& call) {
  if (!call.has("bias")) return "";
  const EncodedWeight* weight = call.encoded(call.argument("weight"));
  const std::optional<double> scale = input_scale(call);
  const std::optional<at::Tensor> bias = call.stored(call.argument("bias"));
  const bool is_integer = weight != nullptr && scale && bias && weight->quantized.groups() == 1 &&
                          weight->quantized.symmetric();
  if (!is_integer) return call.input("bias");
  // In double until the end: a float holds 24 of the 32 bits.
  at::Tensor step = (scales_of(weight->quantized).view(-1) * static_cast<float>(*scale));
  if (step.numel() != 1 && step.numel() != bias->numel()) return call.input("bias");
  const at::Tensor codes = (bias->to(at::kDouble) / step.to(at::kDouble)).round();
  if (codes.abs().max().item<double>() > std::numeric_limits<int32_t>::max()) {
    call.note(
        fmt::format("the bias of {} stays in floating point: it is too large for 32 bits of "
                    "its layer's scale, and the layer's kernel is not an integer one",
                    weight->name));
    return call.input("bias");
  }
  const bool one_scale = step.numel() == 1;
  if (one_scale) step = step.reshape({});
  const at::Tensor integers = codes.to(at::kInt).contiguous();
  std::vector<Attribute> attributes;
  if (!one_scale) attributes.push_back({"axis", int64_t{0}});
  const std::string decoded = call.emit("DequantizeLinear",
                                        {call.constant(integers), call.constant(step),
                                         call.constant(at::zeros(step.sizes(), at::kInt))},
                                        std::move(attributes));
  return call.cast(decoded, at::kFloat, call.dtype("bias"));
}

}  // namespace compress::onnx
