// Tests of passes/quantize/weights.

#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

TEST(QuantizeWeights, RoundsToFifteenStepsOfEachRow) {
  Model model = parse_model("fc.weight : f32[2,2] = [[7, -2.4], [0.5, 14]]");
  EXPECT_EQ(run_pass("quantize.weights{bits=4}", model), Change::kSome);
  EXPECT_EQ(effective_weight(model, "fc.weight"), "[[7, -2], [0, 14]]");
}

TEST(QuantizeWeights, LeavesPackedCodesInTheModel) {
  Model model = parse_filled(R"(
input x : f32[2,64]
parameter fc.weight : f32[16,64]
y = aten::linear(x, fc.weight)
return y = y
)");
  const at::Tensor x = at::ones({2, 64});
  const at::Tensor before = model.forward({x})[0];
  run_pass("quantize.weights{bits=8,grid=affine,granularity=group:32}", model);
  EXPECT_EQ(model.find_tensor("fc.weight"), nullptr);
  EXPECT_EQ(model.tensor("fc.weight_codes8").nbytes(), 16u * 64);
  // 64 roundings of at most a step of 6/255 each, at random: 4 sigma of 64 * step^2 / 12.
  EXPECT_TRUE(at::allclose(model.forward({x})[0], before, 0, 4 * 8 * 6 / 255.0 / 3.46));
}

TEST(QuantizeWeights, GivesOutputsOfAnInOutMatrixTheirScale) {
  Model model = parse_model(R"(
input x : f32[1,2]
parameter fc.bias : f32[2] = [0, 0]
parameter fc.weight : f32[2,2] = [[7, 0.07], [1, -0.02]]
y = aten::addmm(fc.bias, x, fc.weight)
return y = y
)");
  run_pass("quantize.weights{bits=4}", model);
  EXPECT_EQ(model.tensor("fc.weight_scale").numel(), 2);
  EXPECT_NEAR(weights(model)[0].effective()[1][1].item<float>(), -0.02, 1e-6);
}

TEST(QuantizeWeights, KeepsPrunedZerosForEveryWidth) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const char* grid : {"symmetric", "affine"}) {
      Model model = parse_filled("fc.weight : f32[8,32]");
      run_pass("prune.magnitude{sparsity=0.5}", model);
      const at::Tensor zeros = weights(model)[0].effective() == 0;
      run_pass("quantize.weights{bits=" + std::to_string(bits) + ",grid=" + grid + "}", model);
      const at::Tensor after = weights(model)[0].effective() == 0;
      EXPECT_TRUE(at::equal(after.logical_and(zeros), zeros)) << bits << ' ' << grid;
    }
  }
}

TEST(QuantizeWeights, ReportsTheBitsItStores) {
  Model model = parse_filled("fc.weight : f32[4,256]");
  const RunResult result = run_passes("quantize.weights{bits=4,granularity=group:128}", model);
  EXPECT_DOUBLE_EQ(result.steps.at(0).measures.at("bits_per_weight"), 4 + 32.0 / 128);
}

TEST(QuantizeWeights, WritesNumberFormatsAndNamesThem) {
  const std::map<std::string, std::string> names = {
      {"nf4", "nf4 group:64"},     {"nf4,granularity=group:8", "nf4 group:8"},
      {"fp8", "fp8 e4m3 channel"}, {"fp8,bits=8", "fp8 e4m3 channel"},
      {"mxfp4", "mxfp4"},          {"nvfp4", "nvfp4"}};
  for (const auto& [options, name] : names) {
    Model model = parse_filled("fc.weight : f32[4,256]");
    const at::Tensor before = weights(model)[0].effective();
    EXPECT_EQ(run_pass("quantize.weights{format=" + options + "}", model), Change::kSome);
    const Weight weight = weights(model).at(0);
    EXPECT_EQ(weight.encoding(), name);
    EXPECT_EQ(weight.bits_on_disk(), weight.quantized()->bits_on_disk());
    EXPECT_LT((weight.effective() - before).norm().item<double>(),
              .15 * before.norm().item<double>());
  }
}

TEST(QuantizeWeights, RefusesOptionsThatContradictTheFormat) {
  Model model = parse_filled("fc.weight : f32[4,64]");
  EXPECT_THAT(refusal("quantize.weights{format=nf4,bits=3}", model),
              AllOf(HasSubstr("/bits"), HasSubstr("nf4 codes have 4 bits, not 3")));
  EXPECT_THAT(refusal("quantize.weights{format=fp8,bits=4}", model), HasSubstr("8 bits, not 4"));
  EXPECT_THAT(refusal("quantize.weights{format=mxfp4,granularity=group:64}", model),
              AllOf(HasSubstr("/granularity"), HasSubstr("scales by group:32, not by group:64")));
  EXPECT_THAT(refusal("quantize.weights{format=nvfp4,grid=affine}", model), HasSubstr("/grid"));
  EXPECT_THAT(refusal("quantize.weights{format=nf4,range=mse}", model), HasSubstr("/range"));
  EXPECT_THAT(refusal("quantize.weights{bits=five}", model), HasSubstr("whole number"));
}

TEST(QuantizeWeights, LeavesQuantizedWeightsAlone) {
  Model model = parse_filled("fc.weight : f32[4,16]");
  run_pass("quantize.weights", model);
  EXPECT_EQ(run_pass("quantize.weights{bits=2}", model), Change::kNone);
}

TEST(QuantizeWeights, RefusesNineBits) {
  Model model = parse_filled("fc.weight : f32[4,16]");
  EXPECT_THAT(refusal("quantize.weights{bits=9}", model), HasSubstr("9"));
}

TEST(QuantizeWeights, RefusesNanByName) {
  Model model = parse_model("fc.weight : f32[1,2] = [[1, nan]]");
  EXPECT_THAT(refusal("quantize.weights", model), HasSubstr("fc.weight"));
}

}  // namespace
}  // namespace compress::testing
