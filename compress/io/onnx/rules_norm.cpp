// Normalisations.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <ATen/ops/full.h>

#include <limits>

namespace compress::onnx {
namespace {

// `count` equal numbers, for a scale or shift that the layer does without.
std::string filled(Call& call, int64_t count, double value) {
  return call.constant(at::full({count}, value, call.out_dtype()));
}

float epsilon(Call& call) { return static_cast<float>(call.number("eps")); }

void batch_norm(Call& call) {
  if (call.flag("training")) call.refuse("batch_norm in training mode");
  if (!call.has("running_mean")) call.refuse("batch_norm without running statistics");
  const int64_t channels = call.fixed(call.sizes("input").at(1), "channels");
  const auto given = [&](std::string_view name, double value) {
    return call.has(name) ? call.input(name) : filled(call, channels, value);
  };
  call.result(call.emit("BatchNormalization",
                        {call.input("input"), given("weight", 1), given("bias", 0),
                         call.input("running_mean"), call.input("running_var")},
                        {{"epsilon", epsilon(call)}}));
}

void layer_norm(Call& call) {
  const std::vector<int64_t> normalized = call.integers("normalized_shape");
  std::string scale;
  if (call.has("weight")) {
    scale = call.input("weight");
  } else {
    scale = call.constant(at::full(normalized, 1, call.out_dtype()));
  }
  call.result(
      call.emit("LayerNormalization", {call.input("input"), scale, call.optional_input("bias")},
                {{"axis", -static_cast<int64_t>(normalized.size())}, {"epsilon", epsilon(call)}}));
}

// x / sqrt(mean(x^2) + eps). Zhang and Sennrich, "Root Mean Square Layer Normalization", NeurIPS
// 2019, equation 4.
void rms_norm(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  const std::string x = call.input("input");
  const int64_t rank = call.rank("input");
  std::vector<int64_t> axes;
  const auto count = static_cast<int64_t>(call.integers("normalized_shape").size());
  for (int64_t axis = rank - count; axis < rank; ++axis) axes.push_back(axis);
  const double eps = call.has("eps") ? call.number("eps") : std::numeric_limits<float>::epsilon();
  const std::string mean = call.reduce("ReduceMean", call.emit("Mul", {x, x}), axes, true);
  const std::string root = call.emit("Sqrt", {call.emit("Add", {mean, call.constant(eps, dtype)})});
  const std::string scaled = call.emit("Div", {x, root});
  call.result(call.has("weight") ? call.emit("Mul", {scaled, call.input("weight")}) : scaled);
}

// A vector of channels that multiplies or shifts dimension 1.
std::string per_channel(Call& call, std::string_view name, int64_t rank) {
  std::vector<int64_t> axes;
  for (int64_t axis = 1; axis < rank - 1; ++axis) axes.push_back(axis);
  return axes.empty() ? call.input(name) : call.unsqueeze(call.input(name), axes);
}

// Each group is an instance of its own, normalised without scale.
void group_norm(Call& call) {
  const int64_t groups = call.integer("num_groups"), rank = call.rank("input");
  const std::string x = call.input("input");
  const std::string flat =
      call.emit("Reshape", {x, call.constant(std::vector<int64_t>{0, groups, -1})});
  std::string out =
      call.emit("InstanceNormalization", {flat, filled(call, groups, 1), filled(call, groups, 0)},
                {{"epsilon", epsilon(call)}});
  out = call.emit("Reshape", {out, call.emit("Shape", {x})});
  if (call.has("weight")) out = call.emit("Mul", {out, per_channel(call, "weight", rank)});
  if (call.has("bias")) out = call.emit("Add", {out, per_channel(call, "bias", rank)});
  call.result(out);
}

void instance_norm(Call& call) {
  if (!call.flag("use_input_stats")) call.refuse("instance_norm with running statistics");
  const int64_t channels = call.fixed(call.sizes("input").at(1), "channels");
  const auto given = [&](std::string_view name, double value) {
    return call.has(name) ? call.input(name) : filled(call, channels, value);
  };
  call.result(call.emit("InstanceNormalization",
                        {call.input("input"), given("weight", 1), given("bias", 0)},
                        {{"epsilon", epsilon(call)}}));
}

}  // namespace

Rules norm_rules() {
  return {{"aten::batch_norm", batch_norm},
          {"aten::layer_norm", layer_norm},
          {"aten::rms_norm", rms_norm},
          {"aten::group_norm", group_norm},
          {"aten::instance_norm", instance_norm}};
}

}  // namespace compress::onnx
