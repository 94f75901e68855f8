// Tests of passes/quantize/dynamic.

#include "passes/quantize/activation_grid.h"
#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

constexpr const char* kTwoReaders = R"(
input x : f32[batch,8]
parameter a.weight : f32[4,8]
parameter b.weight : f32[4,8]
parameter conv.weight : f32[2,1,3]
a = aten::linear(x, a.weight, none) : f32[batch,4] @ a
b = aten::linear(x, b.weight, none) : f32[batch,4] @ b
row = aten::unsqueeze(b, 1) : f32[batch,1,4]
conv = aten::conv1d(row, conv.weight, none, [1], [0], [1], 1) : f32[batch,2,2] @ conv
return a = a
return conv = conv
)";

int64_t count_of(const Model& model, std::string_view op) {
  int64_t count = 0;
  for (const Node& node : model.graph().nodes()) count += node.op() == op ? 1 : 0;
  return count;
}

TEST(QuantizeDynamic, RoundsEachInputByItsOwnExtremes) {
  Model model = parse_model(R"(
input x : f32[1,3]
parameter fc.weight : f32[3,3] = [[127, 0, 0], [0, 127, 0], [0, 0, 127]]
fc = aten::linear(x, fc.weight, none) : f32[1,3] @ fc
return fc = fc
)");
  run_pass("quantize.dynamic{activations=4}", model);
  const std::vector<at::Tensor> inputs = {
      at::tensor({-0.37f, 0.11f, 2.3f}), at::tensor({1.f, 2.5f, 40.f}),
      at::tensor({-7.f, -0.1f, -3.3f}), at::tensor({0.f, 0.f, 0.f}),
      at::tensor({2e-4f, -1e-4f, 0.f})};
  for (const at::Tensor& x : inputs) {
    const Interval range = Interval::with_zero(x.min().item<double>(), x.max().item<double>());
    const ActivationGrid grid = activation_grid(range, {4, false, false});
    const at::Tensor expected =
        at::fake_quantize_per_tensor_affine(x, grid.scale, grid.zero_point, grid.first, grid.last);
    EXPECT_TRUE(at::allclose(model.forward({x.unsqueeze(0)})[0] / 127, expected, 1e-5, 1e-7)) << x;
  }
}

TEST(QuantizeDynamic, RoundsAValueOnceForAllThatReadIt) {
  Model model = parse_filled(kTwoReaders);
  const RunResult result = run_passes("quantize.dynamic", model);
  EXPECT_EQ(result.steps.at(0).counts.at("activations_quantized"), 1);
  EXPECT_EQ(count_of(model, "aten::aminmax"), 1);
  EXPECT_EQ(weights(model)[0].encoding(), "int8 channel");
}

TEST(QuantizeDynamic, LetsGradientsThrough) {
  Model model = parse_filled(kTwoReaders);
  run_pass("quantize.dynamic", model);
  const at::Tensor x = at::ones({2, 8}).requires_grad_();
  model.forward({x})[0].sum().backward();
  EXPECT_GT(x.grad().abs().sum().item<double>(), 0);
}

TEST(QuantizeDynamic, LeavesConvolutionsAloneUnlessAsked) {
  Model model = parse_filled(kTwoReaders);
  run_pass("quantize.dynamic", model);
  EXPECT_EQ(weights(model)[2].encoding(), "f32");
  run_pass("quantize.dynamic{where={kind=conv}}", model);
  EXPECT_EQ(weights(model)[2].encoding(), "int8 channel");
}

TEST(QuantizeDynamic, RoundsTheInputsOfCodesThatAreThere) {
  Model model = parse_filled(kTwoReaders);
  run_pass("quantize.weights{bits=4,where=a.*}", model);
  const RunResult result = run_passes("quantize.dynamic", model);
  EXPECT_EQ(weights(model)[0].encoding(), "int4 channel");
  EXPECT_EQ(result.steps.at(0).counts.at("weights_left_alone"), 1);
  EXPECT_EQ(result.steps.at(0).counts.at("activations_quantized"), 1);
}

TEST(QuantizeDynamic, HasNothingToDoTwice) {
  Model model = parse_filled(kTwoReaders);
  run_pass("quantize.dynamic", model);
  EXPECT_EQ(run_pass("quantize.dynamic", model), Change::kNone);
}

TEST(QuantizeDynamic, SaysWhichWeightsHaveNoActivation) {
  Model model = parse_filled(R"(
input i : i64[3]
parameter e.weight : f32[9,4]
e = aten::embedding(e.weight, i)
return e = e
)");
  const RunResult result = run_passes("quantize.dynamic{where=e.*}", model);
  EXPECT_THAT(result.steps.at(0).messages.at(0), HasSubstr("e.weight: left alone"));
}

TEST(QuantizeDynamic, RefusesTensorsWithoutAGraph) {
  Model model = parse_model("fc.weight : f32[1,2] = [[1, 2]]");
  EXPECT_THAT(refusal("quantize.dynamic{where=*}", model), HasSubstr("quantize.weights"));
}

}  // namespace
}  // namespace compress::testing
