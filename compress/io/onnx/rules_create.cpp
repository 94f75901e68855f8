// Tensors made from sizes.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

namespace compress::onnx {
namespace {

// One value everywhere, in the sizes of the result.
void filled(Call& call, const std::string& value) {
  call.result(call.emit("Expand", {value, call.shape(call.out_sizes())}));
}

void zeros(Call& call) { filled(call, call.constant(0, call.out_dtype())); }
void ones(Call& call) { filled(call, call.constant(1, call.out_dtype())); }

void full(Call& call) {
  const Argument& value = call.find("fill_value");
  filled(call, call.operand(value.is_none() ? call.argument("value") : value, call.out_dtype()));
}

// What the sizes of another tensor are, is asked of that tensor.
void like(Call& call, double value) {
  const std::string one = call.constant(value, call.out_dtype());
  call.result(call.emit("Expand", {one, call.emit("Shape", {call.input("self")})}));
}

void zeros_like(Call& call) { like(call, 0); }
void ones_like(Call& call) { like(call, 1); }

void full_like(Call& call) {
  const std::string value = call.operand(call.argument("fill_value"), call.out_dtype());
  call.result(call.emit("Expand", {value, call.emit("Shape", {call.input("self")})}));
}

void range(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  const auto bound = [&](std::string_view name, int64_t otherwise) {
    return call.operand(call.has(name) ? call.argument(name) : Argument(otherwise), dtype);
  };
  call.result(call.emit("Range", {bound("start", 0), bound("end", 0), bound("step", 1)}));
}

}  // namespace

Rules create_rules() {
  return {{"aten::zeros", zeros},
          {"aten::new_zeros", zeros},
          {"aten::ones", ones},
          {"aten::new_ones", ones},
          {"aten::full", full},
          {"aten::new_full", full},
          {"aten::fill.Tensor", full},
          {"aten::fill.Scalar", full},
          {"aten::zeros_like", zeros_like},
          {"aten::ones_like", ones_like},
          {"aten::full_like", full_like},
          {"aten::arange", range},
          {"aten::arange.start", range},
          {"aten::arange.start_step", range}};
}

}  // namespace compress::onnx
