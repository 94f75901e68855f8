// Tests of passes/quantize/cross_layer_equalize.

#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;

// A chain with a depthwise layer in it, one norm in place, pooling, and a classifier.
constexpr const char* kChain = R"(
input x : f32[batch,3,8,8]
parameter a.weight : f32[6,3,3,3]
parameter bn.weight : f32[6]
parameter bn.bias : f32[6]
buffer bn.running_mean : f32[6] = [0, 1, -1, 0.5, 0, 2]
buffer bn.running_var : f32[6] = [1, 4, 0.25, 1, 9, 1]
parameter dw.weight : f32[6,1,3,3]
parameter dw.bias : f32[6]
parameter c.weight : f32[5,6,1,1]
parameter c.bias : f32[5]
parameter fc.weight : f32[10,20]
a = aten::conv2d(x, a.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,6,8,8] @ a
bn = aten::batch_norm(a, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 0.00001, true) : f32[batch,6,8,8] @ bn
relu = aten::relu(bn) : f32[batch,6,8,8]
dw = aten::conv2d(relu, dw.weight, dw.bias, [1, 1], [1, 1], [1, 1], 6) : f32[batch,6,8,8] @ dw
relu_dw = aten::relu(dw) : f32[batch,6,8,8]
c = aten::conv2d(relu_dw, c.weight, c.bias, [1, 1], [0, 0], [1, 1], 1) : f32[batch,5,8,8] @ c
relu_c = aten::relu(c) : f32[batch,5,8,8]
pool = aten::max_pool2d(relu_c, [4, 4], [4, 4]) : f32[batch,5,2,2]
flat = aten::flatten.using_ints(pool, 1) : f32[batch,20]
fc = aten::linear(flat, fc.weight, none) : f32[batch,10] @ fc
return fc = fc
)";

// Channels that are not where a pair of layers would have them: a norm over tokens, an image
// without a batch, a weight on the left.
constexpr const char* kNoPairs[] = {R"(
input x : f32[2,6,4]
parameter a.weight : f32[6,4]
parameter b.weight : f32[3,6]
parameter bn.weight : f32[6]
parameter bn.bias : f32[6]
buffer bn.running_mean : f32[6] = [0, 1, -1, 0.5, 0, 2]
buffer bn.running_var : f32[6] = [1, 4, 0.25, 1, 9, 1]
a = aten::linear(x, a.weight) : f32[2,6,6]
bn = aten::batch_norm(a, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 0.00001, true) : f32[2,6,6]
relu = aten::relu(bn) : f32[2,6,6]
b = aten::linear(relu, b.weight) : f32[2,6,3]
return y = b
)",
                                    R"(
input x : f32[3,6,6]
parameter a.weight : f32[6,3,1,1]
parameter b.weight : f32[5,36]
a = aten::conv2d(x, a.weight) : f32[6,6,6]
relu = aten::relu(a) : f32[6,6,6]
flat = aten::flatten.using_ints(relu, 1) : f32[6,36]
b = aten::linear(flat, b.weight) : f32[6,5]
return y = b
)",
                                    R"(
input x : f32[4,6]
parameter a.weight : f32[8,4]
parameter b.weight : f32[5,8]
parameter bias : f32[6]
a = aten::addmm(bias, a.weight, x) : f32[8,6]
relu = aten::relu(a) : f32[8,6]
b = aten::addmm(bias, b.weight, relu) : f32[5,6]
return y = b
)"};

TEST(QuantizeCrossLayerEqualize, PassesOverChannelsThatAreElsewhere) {
  for (const char* text : kNoPairs) {
    SCOPED_TRACE(text);
    Model model = parse_filled(text);
    EXPECT_EQ(run_pass("quantize.cross_layer_equalize", model), Change::kNone);
  }
}

double greatest_difference(const Model& a, const Model& b) {
  at::manual_seed(9);
  const at::Tensor x = at::randn({8, 3, 8, 8});
  const at::Tensor expected = a.forward({x})[0];
  return ((b.forward({x})[0] - expected).abs().max() / expected.abs().max()).item<double>();
}

TEST(CrossLayerEqualize, KeepsTheFunction) {
  for (const char* line :
       {"quantize.cross_layer_equalize", "fold.batch_norm,quantize.cross_layer_equalize"}) {
    Model model = parse_filled(kChain);
    const Model before = model.clone();
    const RunResult result = run_passes(line, model);
    EXPECT_EQ(result.steps.back().counts.at("pairs_equalized"), 3) << line;
    EXPECT_LT(greatest_difference(before, model), 1e-5) << line;
    EXPECT_FALSE(at::equal(model.tensor("c.weight"), before.tensor("c.weight")));
  }
}

TEST(CrossLayerEqualize, GivesAllChannelsOfAChainTheSameRange) {
  Model model = parse_filled(kChain);
  run_pass("quantize.cross_layer_equalize,fold.batch_norm", model);
  const auto outputs = [&](const char* name) {
    return model.tensor(name).abs().flatten(1).amax(1);
  };
  const at::Tensor a = outputs("a.weight"), dw = outputs("dw.weight");
  const at::Tensor c = model.tensor("c.weight").abs().amax({0, 2, 3});
  EXPECT_TRUE(at::allclose(a, dw, 1e-4)) << a << dw;
  EXPECT_TRUE(at::allclose(dw, c, 1e-4)) << dw << c;
  const at::Tensor fc = model.tensor("fc.weight").view({10, 5, 4}).abs().amax({0, 2});
  EXPECT_TRUE(at::allclose(outputs("c.weight"), fc, 1e-4));
}

// Whatever factors someone has hidden between two layers, the result is the same.
TEST(CrossLayerEqualize, UndoesFactorsOfPowersOfTwo) {
  Model plain = parse_filled(kChain), hidden = parse_filled(kChain);
  const at::Tensor factors = at::tensor({1.f, 64.f, 0.0625f, 8.f, 0.5f, 256.f});
  hidden.set_tensor("dw.weight", hidden.tensor("dw.weight") * factors.view({6, 1, 1, 1}));
  hidden.set_tensor("dw.bias", hidden.tensor("dw.bias") * factors);
  hidden.set_tensor("c.weight", hidden.tensor("c.weight") / factors.view({1, 6, 1, 1}));
  run_pass("quantize.cross_layer_equalize", plain);
  run_pass("quantize.cross_layer_equalize", hidden);
  for (const char* name : {"a.weight", "dw.weight", "dw.bias", "c.weight", "bn.weight"}) {
    EXPECT_TRUE(at::allclose(plain.tensor(name), hidden.tensor(name), 1e-4)) << name;
  }
}

TEST(CrossLayerEqualize, MakesOneScaleATensorGoodEnough) {
  Model model = parse_filled(kChain);
  const at::Tensor factors = at::exp2(at::arange(-6, 6, 2).to(at::kFloat));
  model.set_tensor("dw.weight", model.tensor("dw.weight") * factors.view({6, 1, 1, 1}));
  model.set_tensor("dw.bias", model.tensor("dw.bias") * factors);
  model.set_tensor("c.weight", model.tensor("c.weight") / factors.view({1, 6, 1, 1}));
  const Model before = model.clone();
  Model rounded = model.clone();
  run_pass("quantize.weights{bits=6,granularity=tensor}", rounded);
  run_pass("quantize.cross_layer_equalize,quantize.weights{bits=6,granularity=tensor}", model);
  EXPECT_LT(greatest_difference(before, model), 0.5 * greatest_difference(before, rounded));
}

TEST(CrossLayerEqualize, AbsorbsWhatAReluPassesOnAnyway) {
  Model model = parse_filled(R"(
input x : f32[batch,4]
parameter a.weight : f32[3,4]
parameter bn.weight : f32[3] = [0.5, 1, 1]
parameter bn.bias : f32[3] = [2, -1, 3]
buffer bn.running_mean : f32[3] = [0, 0, 0]
buffer bn.running_var : f32[3] = [4, 4, 4]
parameter b.weight : f32[2,3]
a = aten::linear(x, a.weight, none) : f32[batch,3] @ a
bn = aten::batch_norm(a, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 0.00001, true) : f32[batch,3] @ bn
relu = aten::relu(bn) : f32[batch,3]
b = aten::linear(relu, b.weight, none) : f32[batch,2] @ b
return b = b
)");
  const Model before = model.clone();
  const RunResult result = run_passes("quantize.cross_layer_equalize{absorb_bias=true}", model);
  EXPECT_EQ(result.steps.at(0).counts.at("biases_absorbed"), 1);  // 2 - 3 * 0.5; 3 - 3 is nothing
  EXPECT_NE(model.find_tensor("b.bias"), nullptr);
  // Inputs within three deviations of every channel: nothing is cut off.
  const at::Tensor x = at::full({1, 4}, 0.01f);
  EXPECT_TRUE(at::allclose(model.forward({x})[0], before.forward({x})[0], 1e-5, 1e-6));
}

TEST(CrossLayerEqualize, SaysWhyABiasIsNotAbsorbed) {
  Model model = parse_filled(kChain);
  const RunResult result =
      run_passes("fold.batch_norm,quantize.cross_layer_equalize{absorb_bias=true}", model);
  EXPECT_THAT(result.steps.at(1).messages,
              Contains(AllOf(HasSubstr("a.weight: bias not absorbed"), HasSubstr("batch norm"))));
}

TEST(CrossLayerEqualize, LeavesBranchesAndOtherFunctionsAlone) {
  Model model = parse_filled(R"(
input x : f32[batch,4]
parameter a.weight : f32[4,4]
parameter b.weight : f32[4,4]
parameter c.weight : f32[4,4]
a = aten::linear(x, a.weight, none)
relu = aten::relu(a)
b = aten::linear(relu, b.weight, none)
sum = aten::add.Tensor(b, relu)
gelu = aten::gelu(sum)
c = aten::linear(gelu, c.weight, none)
return c = c
)");
  const RunResult result = run_passes("quantize.cross_layer_equalize", model);
  EXPECT_EQ(result.steps.at(0).change, Change::kNone);
  EXPECT_THAT(result.steps.at(0).messages.back(), HasSubstr("no two layers follow each other"));
}

TEST(CrossLayerEqualize, SaysWhatDoesNotCommute) {
  Model model = parse_filled(R"(
input x : f32[batch,4]
parameter a.weight : f32[4,4]
parameter b.weight : f32[4,4]
a = aten::linear(x, a.weight, none)
h = aten::hardtanh(a, 0.0, 6.0)
b = aten::linear(h, b.weight, none)
return b = b
)");
  EXPECT_THAT(run_passes("quantize.cross_layer_equalize", model).steps.at(0).messages,
              Contains(AllOf(HasSubstr("a.weight"), HasSubstr("aten::hardtanh"))));
}

TEST(CrossLayerEqualize, KeepsMasks) {
  Model model = parse_filled(kChain);
  run_pass("prune.magnitude{sparsity=0.5}", model);
  const Model before = model.clone();
  run_pass("quantize.cross_layer_equalize", model);
  EXPECT_LT(greatest_difference(before, model), 1e-5);
  EXPECT_TRUE(weights(model)[0].mask().defined());
}

}  // namespace
}  // namespace compress::testing
