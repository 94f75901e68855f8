// Fake quantization of activations: QuantizeLinear and DequantizeLinear.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <ATen/ops/full.h>

#include <fmt/format.h>

namespace compress::onnx {
namespace {

struct Range {
  int64_t low, high;
  bool is_signed() const { return low < 0; }
  bool fits() const { return is_signed() ? low >= -128 && high <= 127 : low >= 0 && high <= 255; }
  bool is_full() const {
    return is_signed() ? low == -128 && high == 127 : low == 0 && high == 255;
  }
};

// Fewer codes than the type has: what lies outside is clipped before.
std::string clipped(Call& call, const std::string& x, const Range& range, double scale,
                    int64_t zero_point) {
  call.note(
      fmt::format("activations of {} codes are 8 bits with a Clip in front, which keeps "
                  "ONNX Runtime from its integer kernels",
                  range.high - range.low + 1));
  const auto bound = [&](int64_t code) {
    return call.constant(static_cast<double>(code - zero_point) * scale, at::kFloat);
  };
  return call.emit("Clip", {x, bound(range.low), bound(range.high)});
}

void quantize(Call& call, double scale, int64_t zero_point) {
  const Range range{call.integer("quant_min"), call.integer("quant_max")};
  if (!range.fits()) {
    call.refuse(fmt::format("codes {} to {} do not fit 8 bits", range.low, range.high));
  }
  std::string x = call.input("self", at::kFloat);  // quantizers know no other dtype in opset 17
  if (!range.is_full()) x = clipped(call, x, range, scale, zero_point);
  const std::vector<std::string> step{
      call.constant(scale, at::kFloat),
      call.constant(at::full({}, zero_point, range.is_signed() ? at::kChar : at::kByte))};
  const std::string codes = call.emit("QuantizeLinear", {x, step[0], step[1]});
  const std::string rounded = call.emit("DequantizeLinear", {codes, step[0], step[1]});
  call.result(call.cast(rounded, at::kFloat, call.out_dtype()));
}

void fake_quantize(Call& call) { quantize(call, call.number("scale"), call.integer("zero_point")); }

void fake_quantize_by_tensors(Call& call) {
  const auto scale = call.stored(call.argument("scale"));
  const auto zero_point = call.stored(call.argument("zero_point"));
  if (!scale || !zero_point || scale->numel() != 1) {
    call.refuse("a scale that is computed when the network runs");
  }
  quantize(call, scale->item<double>(), zero_point->item<int64_t>());
}

}  // namespace

Rules quantize_rules() {
  return {{"aten::fake_quantize_per_tensor_affine", fake_quantize},
          {"aten::fake_quantize_per_tensor_affine.tensor_qparams", fake_quantize_by_tensors}};
}

}  // namespace compress::onnx
