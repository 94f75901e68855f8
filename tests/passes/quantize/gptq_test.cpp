// Tests of passes/quantize/gptq.

#include "compress/calibrate/layer_input.h"
#include "tests/passes/second_order/two_layers.h"

namespace compress::testing {
namespace {

TEST(QuantizeGptq, ChangesOutputsLessThanRoundToNearest) {
  for (const char* bits : {"2", "3", "4"}) {
    Model original = parse_filled(kTwoLayers);
    Model rounded = original.clone(), model = original.clone();
    run_passes(std::string("quantize.weights{grid=affine,bits=") + bits + "}", rounded);
    run_passes(std::string("quantize.gptq{bits=") + bits + "}", model, calibrated({samples()}));
    EXPECT_LT(output_error(model, original), output_error(rounded, original)) << bits;
    EXPECT_EQ(weights(model)[0].encoding(), std::string("uint") + bits + " channel");
  }
}

TEST(QuantizeGptq, SeesTheInputsThatQuantizedLayersMake) {
  // With the first layer at two bits the second one's inputs differ much; rounding it for them is
  // better than rounding it for those of the original.
  Model original = parse_filled(kTwoLayers);
  Model sequential = original.clone(), apart = original.clone();
  run_passes("quantize.gptq{bits=2}", sequential, calibrated({samples()}));
  run_passes("quantize.gptq{bits=2,where=b.weight},quantize.gptq{bits=2,where=a.weight}", apart,
             calibrated({samples()}));
  EXPECT_TRUE(at::equal(weights(sequential)[0].effective(), weights(apart)[0].effective()));
  EXPECT_FALSE(at::equal(weights(sequential)[1].effective(), weights(apart)[1].effective()));
}

TEST(QuantizeGptq, MakesUpForTheLayersBeforeWhenTheOriginalIsTheTarget) {
  const Model original = parse_filled(kTwoLayers);
  for (const char* bits : {"2", "3", "4"}) {
    const std::string pass = std::string("quantize.gptq{bits=") + bits + ",target=";
    Model apart = original.clone(), together = original.clone();
    run_passes(pass + "layer}", apart, calibrated({samples()}));
    run_passes(pass + "original}", together, calibrated({samples()}));
    EXPECT_LT(output_error(together, original), output_error(apart, original)) << bits;
    // Nothing lies before the first layer.
    EXPECT_TRUE(at::equal(weights(apart)[0].effective(), weights(together)[0].effective()));
  }
}

TEST(QuantizeGptq, DoesNotDependOnTheSizeOfBatches) {
  Model one = parse_filled(kTwoLayers), many = one.clone();
  run_passes("quantize.gptq{bits=3}", one, calibrated({samples()}));
  const auto parts = samples().split(33);
  run_passes("quantize.gptq{bits=3}", many, calibrated(parts));
  // Sums of floats in another order may flip a code on the edge between two.
  const at::Tensor same = weights(one)[0].effective().isclose(weights(many)[0].effective());
  EXPECT_GT(same.to(at::kDouble).mean().item<double>(), 0.99);
}

TEST(QuantizeGptq, QuantizesConvolutionsWithGroups) {
  Model model = parse_filled(R"(
input x : f32[batch,4,6,6]
parameter w : f32[8,2,3,3]
y = aten::conv2d(x, w, none, [1, 1], [1, 1], [1, 1], 2) : f32[batch,8,6,6]
return y = y
)");
  const Model original = model.clone();
  at::manual_seed(2);
  const at::Tensor x = at::randn({32, 4, 6, 6});
  Model rounded = model.clone();
  run_passes("quantize.weights{bits=3,grid=affine}", rounded);
  run_passes("quantize.gptq{bits=3,granularity=group:6}", model, calibrated({x}));
  EXPECT_EQ(weights(model)[0].encoding(), "uint3 group:6");
  const at::Tensor y = original.forward({x})[0];
  EXPECT_LT((model.forward({x})[0] - y).square().sum().item<float>(),
            (rounded.forward({x})[0] - y).square().sum().item<float>());
}

TEST(QuantizeGptq, KeepsPrunedZeros) {
  Model model = parse_filled(kTwoLayers);
  run_pass("prune.magnitude{sparsity=0.5}", model);
  const at::Tensor zeros = weights(model)[0].effective() == 0;
  run_passes("quantize.gptq{bits=3}", model, calibrated({samples()}));
  const at::Tensor after = weights(model)[0].effective() == 0;
  EXPECT_TRUE(at::equal(after.logical_and(zeros), zeros));
}

TEST(QuantizeGptq, SaysWhichInputsAreDead) {
  Model model = parse_filled(kTwoLayers);
  at::Tensor x = samples();
  x.select(1, 7).zero_();
  const RunResult result = run_passes("quantize.gptq", model, calibrated({x}));
  EXPECT_THAT(result.steps[0].messages.at(0),
              HasSubstr("a.weight: 1 of 12 inputs are always zero"));
  EXPECT_TRUE((weights(model)[0].effective().select(1, 7) == 0).all().item<bool>());
}

TEST(QuantizeGptq, SaysWhenItRaisesTheDamping) {
  Model model = parse_filled(kTwoLayers);
  const RunResult result =
      run_passes("quantize.gptq{damping=0}", model, calibrated({samples().narrow(0, 0, 5)}));
  EXPECT_THAT(result.steps[0].messages.at(0), HasSubstr("a.weight: damping raised to 1e-06"));
}

TEST(QuantizeGptq, LeavesEmbeddingsAndCodesAloneAndSaysSo) {
  Model model = parse_filled(R"(
input tokens : i64[batch]
parameter embed.weight : f32[10,8]
parameter a.weight : f32[6,8]
parameter b.weight : f32[4,6]
e = aten::embedding(embed.weight, tokens) : f32[batch,8]
a = aten::linear(e, a.weight) : f32[batch,6]
b = aten::linear(a, b.weight) : f32[batch,4]
return y = b
)");
  run_pass("quantize.weights{where=a.weight}", model);
  const RunResult result = run_passes("quantize.gptq", model, calibrated({at::arange(10)}));
  EXPECT_EQ(result.steps[0].counts.at("weights_left_alone"), 2);
  EXPECT_THAT(result.steps[0].messages.at(0), HasSubstr("embed.weight: left alone, an embedding"));
  EXPECT_THAT(result.steps[0].messages.at(1), HasSubstr("a.weight: left alone, it is quantized"));
  EXPECT_TRUE(weights(model)[2].is_quantized());
}

TEST(QuantizeGptq, NeedsCalibrationData) {
  Model model = parse_filled(kTwoLayers);
  EXPECT_THAT(refusal("quantize.gptq", model), HasSubstr("needs calibration data"));
}

}  // namespace
}  // namespace compress::testing
