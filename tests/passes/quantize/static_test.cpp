// Tests of passes/quantize/static.

#include "tests/support/pass_test.h"

#include <fmt/format.h>

#include <string>
#include <vector>

namespace compress::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Not;

// Two layers with a ReLU between them; integers that 8 bits hold exactly.
constexpr const char* kTwoLayers = R"(
input x : f32[batch,2]
parameter a.weight : f32[2,2] = [[127, 0], [0, -127]]
parameter a.bias : f32[2] = [0, 0]
parameter b.weight : f32[1,2] = [[127, 64]]
a = aten::linear(x, a.weight, a.bias) : f32[batch,2] @ a
relu = aten::relu(a) : f32[batch,2]
b = aten::linear(relu, b.weight, none) : f32[batch,1] @ b
return b = b
)";

constexpr const char* kNetwork = R"(
input x : f32[batch,3,8,8]
parameter stem.weight : f32[8,3,3,3]
parameter stem.bias : f32[8]
parameter a.weight : f32[8,8,3,3]
parameter b.weight : f32[8,8,3,3]
parameter fc.weight : f32[10,8]
parameter fc.bias : f32[10]
stem = aten::conv2d(x, stem.weight, stem.bias, [1, 1], [1, 1]) : f32[batch,8,8,8] @ stem
relu = aten::relu(stem) : f32[batch,8,8,8]
a = aten::conv2d(relu, a.weight, none, [1, 1], [1, 1]) : f32[batch,8,8,8] @ a
relu_a = aten::relu(a) : f32[batch,8,8,8]
b = aten::conv2d(relu_a, b.weight, none, [1, 1], [1, 1]) : f32[batch,8,8,8] @ b
sum = aten::add.Tensor(b, relu) : f32[batch,8,8,8]
relu_sum = aten::relu(sum) : f32[batch,8,8,8]
mean = aten::mean.dim(relu_sum, [2, 3]) : f32[batch,8]
fc = aten::linear(mean, fc.weight, fc.bias) : f32[batch,10] @ fc
return fc = fc
)";

RunOptions on(std::vector<at::Tensor> batches) {
  RunOptions options;
  options.calibration = [batches = std::move(batches)](const auto& consume) {
    for (const at::Tensor& batch : batches) consume({batch});
  };
  return options;
}

RunOptions on_noise(int64_t samples = 64) {
  at::manual_seed(1);
  return on({at::randn({samples, 3, 8, 8})});
}

std::vector<std::string> lines_with(const Model& model, const std::string& part) {
  std::vector<std::string> found;
  for (const Node& node : model.graph().nodes()) {
    const std::string line = print(node, {.types = false});
    if (line.find(part) != std::string::npos) found.push_back(line);
  }
  return found;
}

TEST(QuantizeStatic, PutsRangesOfTheDataIntoTheGraph) {
  Model model = parse_model(kTwoLayers);
  const at::Tensor x = at::tensor({-0.5f, 1.f, 2.05f, -0.4f}).view({2, 2});
  run_passes("quantize.static{activation_range=minmax}", model, on({x}));
  const auto grids = lines_with(model, "fake_quantize");
  ASSERT_EQ(grids.size(), 2u);
  // -0.5 to 2.05 in 255 steps of 0.01, zero 50 steps up; 127 * 2.05 behind the ReLU.
  EXPECT_THAT(grids[0], HasSubstr("(x, 0.0099999997764"));
  EXPECT_THAT(grids[0], HasSubstr(", 50, 0, 255)"));
  EXPECT_THAT(grids[1], AllOf(HasSubstr("(relu, 1.02"), HasSubstr(", 0, 0, 255)")));
}

TEST(QuantizeStatic, RoundsOutputsByAStepOrTwo) {
  Model model = parse_filled(kNetwork);
  const RunOptions options = on_noise();
  const at::Tensor x = at::randn({16, 3, 8, 8});
  const at::Tensor before = model.forward({x})[0];
  const RunResult result = run_passes("quantize.static", model, options);
  const at::Tensor after = model.forward({x})[0];
  // Eight roundings of weights and activations of relative size 1/256 each, added up at random.
  const double error = ((after - before).norm() / before.norm()).item<double>();
  EXPECT_LT(error, 0.03);
  EXPECT_GT(error, 0);
  EXPECT_EQ(result.steps.at(0).counts.at("activations_quantized"), 6);
  EXPECT_EQ(result.steps.at(0).counts.at("weights_quantized"), 27 * 8 + 2 * 72 * 8 + 80);
  for (const Weight& weight : weights(model)) EXPECT_TRUE(weight.is_quantized()) << weight.name();
}

TEST(QuantizeStatic, RoundsOnlyWhatTheLayersItSelectsRead) {
  Model model = parse_filled(kNetwork);
  run_passes("quantize.static{where=a.*}", model, on_noise());
  EXPECT_EQ(lines_with(model, "fake_quantize").size(), 1u);
  EXPECT_THAT(lines_with(model, "fake_quantize")[0], HasSubstr("(relu, "));
  EXPECT_EQ(weights(model)[1].encoding(), "int8 channel");
  EXPECT_EQ(weights(model)[0].encoding(), "f32");
}

TEST(QuantizeStatic, GivesTheFirstAndTheLastLayerBitsOfTheirOwn) {
  Model model = parse_filled(kNetwork);
  run_passes("quantize.static{bits=3,activations=4,first_last=8,adds=0}", model, on_noise());
  std::vector<std::string> encodings;
  for (const Weight& weight : weights(model)) encodings.push_back(weight.encoding());
  EXPECT_THAT(encodings, ::testing::ElementsAre("int8 channel", "int3 channel", "int3 channel",
                                                "int8 channel"));
  const auto grids = lines_with(model, "fake_quantize");
  ASSERT_EQ(grids.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_THAT(grids[i], HasSubstr(i == 1 || i == 2 ? ", 0, 15)" : ", 0, 255)"));
  }
  Model middle = parse_filled(kNetwork);
  run_passes("quantize.static{first_last=0,adds=0}", middle, on_noise());
  EXPECT_EQ(lines_with(middle, "fake_quantize").size(), 2u);
  EXPECT_EQ(weights(middle)[3].encoding(), "f32");
}

TEST(QuantizeStatic, WritesSignedAndSymmetricCodesWhereAsked) {
  Model model = parse_filled(kNetwork);
  run_passes("quantize.static{activation_codes=int,activation_grid=symmetric}", model, on_noise());
  for (const std::string& line : lines_with(model, "fake_quantize")) {
    EXPECT_THAT(line, HasSubstr(", 0, -128, 127)"));
  }
  Model affine = parse_filled(kNetwork), unsigned_affine = parse_filled(kNetwork);
  run_passes("quantize.static{activation_codes=int}", affine, on_noise());
  run_passes("quantize.static", unsigned_affine, on_noise());
  at::manual_seed(2);
  const at::Tensor x = at::randn({4, 3, 8, 8});
  EXPECT_TRUE(at::equal(affine.forward({x})[0], unsigned_affine.forward({x})[0]))
      << "signed codes of an affine grid stand for the same numbers";
}

TEST(QuantizeStatic, AnswersEveryWayToChooseARange) {
  for (const char* range : {"minmax", "moving", "percentile", "mse", "kl"}) {
    Model model = parse_filled(kNetwork);
    run_passes(fmt::format("quantize.static{{activation_range={}}}", range), model, on_noise());
    EXPECT_EQ(lines_with(model, "fake_quantize").size(), 6u) << range;
  }
}

// Inputs of constant mean 3 in every channel: rounding's mean error is what the bias takes out.
TEST(QuantizeStatic, CorrectsTheMeanOfOutputs) {
  const char* text = R"(
input x : f32[batch,64]
parameter fc.weight : f32[16,64]
fc = aten::linear(x, fc.weight, none) : f32[batch,16] @ fc
return fc = fc
)";
  at::manual_seed(3);
  const at::Tensor x = at::randn({512, 64}) + 3;
  const auto shift = [&](const char* line) {
    Model model = parse_filled(text);
    const at::Tensor before = model.forward({x})[0].mean(0);
    run_passes(line, model, on({x}));
    return (model.forward({x})[0].mean(0) - before).abs().max().item<double>();
  };
  const double without = shift("quantize.static{bits=3,first_last=3,correct_bias=false}");
  const double with = shift("quantize.static{bits=3,first_last=3}");
  EXPECT_GT(without, 0.5);
  // What is left is the input's rounding, 3 bits: at most half a step of 11 / 7 on average zero.
  EXPECT_LT(with, 0.6 * without);
}

TEST(QuantizeStatic, AddsABiasToALayerWithoutOne) {
  Model model = parse_filled(kNetwork);
  const RunResult result = run_passes("quantize.static", model, on_noise());
  EXPECT_EQ(result.steps.at(0).counts.at("biases_corrected"), 4);
  EXPECT_NE(model.find_tensor("a.bias"), nullptr);
}

TEST(QuantizeStatic, KeepsCodesThatAreThereAndRoundsTheirInputs) {
  Model model = parse_filled(kNetwork);
  run_pass("quantize.weights{bits=4,where=a.*}", model);
  const RunResult result = run_passes("quantize.static", model, on_noise());
  EXPECT_EQ(weights(model)[1].encoding(), "int4 channel");
  EXPECT_EQ(result.steps.at(0).counts.at("weights_left_alone"), 1);
  EXPECT_EQ(result.steps.at(0).counts.at("activations_quantized"), 6);
}

TEST(QuantizeStatic, HasNothingToDoTwice) {
  Model model = parse_filled(kNetwork);
  run_passes("quantize.static", model, on_noise());
  EXPECT_EQ(run_passes("quantize.static", model, on_noise()).steps.at(0).change, Change::kNone);
}

TEST(QuantizeStatic, KeepsPrunedZeros) {
  Model model = parse_filled(kNetwork);
  run_pass("prune.magnitude{sparsity=0.5}", model);
  const at::Tensor zeros = weights(model)[1].effective() == 0;
  run_passes("quantize.static", model, on_noise());
  EXPECT_TRUE((weights(model)[1].effective().eq(0) >= zeros).all().item<bool>());
}

TEST(QuantizeStatic, DoesNotDependOnTheSizeOfBatches) {
  for (const char* range : {"minmax", "moving", "mse", "kl", "percentile"}) {
    at::manual_seed(4);
    const at::Tensor x = at::randn({64, 3, 8, 8});
    const std::string line = fmt::format("quantize.static{{activation_range={}}}", range);
    Model whole = parse_filled(kNetwork), parts = parse_filled(kNetwork);
    run_passes(line, whole, on({x}));
    run_passes(line, parts, on(x.split(10)));
    at::manual_seed(5);
    const at::Tensor probe = at::randn({8, 3, 8, 8});
    // Convolutions of other batch sizes differ by some 1e-6, which may move an element by a code.
    EXPECT_TRUE(at::allclose(whole.forward({probe})[0], parts.forward({probe})[0], 0, 0.05))
        << range;
  }
}

std::vector<std::string> messages(const std::string& line, Model& model, RunOptions options) {
  return run_passes(line, model, std::move(options)).steps.back().messages;
}

TEST(QuantizeStatic, SaysThatThereAreFewSamples) {
  Model few = parse_filled(kNetwork), enough = parse_filled(kNetwork);
  EXPECT_THAT(messages("quantize.static", few, on_noise(31)), Contains(HasSubstr("31 samples")));
  EXPECT_THAT(messages("quantize.static", enough, on_noise(32)),
              Not(Contains(HasSubstr("samples"))));
}

TEST(QuantizeStatic, SaysWhatIsDead) {
  Model model = parse_filled(kNetwork);
  model.set_tensor("stem.weight", at::zeros({8, 3, 3, 3}));
  model.set_tensor("stem.bias", at::zeros({8}));
  EXPECT_THAT(messages("quantize.static", model, on_noise()),
              AllOf(Contains(HasSubstr("stem.weight: 8 of 8 output channels have no weight but 0")),
                    Contains(HasSubstr("relu: is 0 on all calibration data"))));
}

TEST(QuantizeStatic, SaysThatGroupsDoNotDivide) {
  Model model = parse_filled(kNetwork);
  EXPECT_THAT(messages("quantize.static{granularity=group:16}", model, on_noise()),
              Contains(HasSubstr("stem.weight: groups of 16 do not divide its 27 columns")));
}

TEST(QuantizeStatic, SaysThatABatchNormIsUnfolded) {
  const char* text = R"(
input x : f32[batch,3,8,8]
parameter a.weight : f32[4,3,3,3]
buffer mean : f32[4] = [0, 0, 0, 0]
buffer var : f32[4] = [1, 1, 1, 1]
a = aten::conv2d(x, a.weight, none, [1, 1], [0, 0], [1, 1], 1) : f32[batch,4,6,6] @ a
norm = aten::batch_norm(a, none, none, mean, var, false, 0.1, 0.00001, true) : f32[batch,4,6,6]
return norm = norm
)";
  Model plain = parse_filled(text), folded = parse_filled(text);
  EXPECT_THAT(messages("quantize.static", plain, on_noise()),
              Contains(AllOf(HasSubstr("behind 1 quantized layers, first a"),
                             HasSubstr("fold.batch_norm before"))));
  EXPECT_TRUE(messages("fold.batch_norm,quantize.static", folded, on_noise()).empty());
}

TEST(QuantizeStatic, RefusesToWorkWithoutData) {
  Model model = parse_filled(kNetwork);
  EXPECT_THAT(refusal("quantize.static", model), HasSubstr("needs calibration data"));
}

TEST(QuantizeStatic, RefusesASelectionWithoutActivations) {
  Model model = parse_filled(R"(
input i : i64[3]
parameter e.weight : f32[9,4]
e = aten::embedding(e.weight, i)
return e = e
)");
  EXPECT_THAT(refusal("quantize.static", model),
              AllOf(HasSubstr("no convolution or linear layer"), HasSubstr("quantize.weights")));
}

TEST(QuantizeStatic, RefusesOneBit) {
  Model model = parse_filled(kNetwork);
  EXPECT_THAT(refusal("quantize.static{first_last=1}", model), HasSubstr("one bit is too few"));
  EXPECT_THAT(refusal("quantize.static{adds=1}", model), HasSubstr("one bit is too few"));
  EXPECT_THAT(refusal("quantize.static{activations=9}", model), HasSubstr("9"));
}

TEST(QuantizeStatic, RefusesDataThatIsNotFinite) {
  Model model = parse_filled(kNetwork);
  const std::string before = print(model);
  try {
    run_passes("quantize.static", model, on({at::full({2, 3, 8, 8}, NAN)}));
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("NaN"));
  }
  EXPECT_EQ(print(model), before);
}

}  // namespace
}  // namespace compress::testing
