// Tests of compress/weight.

#include "compress/weight.h"

#include "compress/graph/text.h"
#include "passes/quantize/round_to_nearest.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::ElementsAre;
using testing::parse_filled;

std::vector<std::string> names(const Model& model) {
  std::vector<std::string> names;
  for (const Weight& weight : weights(model)) names.push_back(weight.name());
  return names;
}

TEST(Weights, FindsTheWeightsOfAllKindsOfLayersAndNoBiases) {
  Model model = parse_filled(R"(
input x : f32[2,4,8]
input ids : i64[2,3]
parameter conv.weight : f32[6,4,3]
parameter conv.bias : f32[6]
parameter up.weight : f32[6,4,3]
parameter fc.weight : f32[5,8]
parameter mm.weight : f32[5,7]
parameter mm.bias : f32[7]
parameter emb.weight : f32[10,5]
a = aten::conv1d(x, conv.weight, conv.bias, [1], [1])
b = aten::conv_transpose1d(a, up.weight, none, [1], [1])
c = aten::linear(b, fc.weight)
d = aten::view(c, [8, 5])
e = aten::addmm(mm.bias, d, mm.weight)
f = aten::embedding(emb.weight, ids)
return e = e
return f = f
)");
  std::vector<std::string> layout;
  for (const Weight& weight : weights(model)) {
    layout.push_back(weight.name() + " out " + std::to_string(weight.output_dim()) + " in " +
                     std::to_string(weight.input_dim()));
  }
  EXPECT_THAT(layout,
              ElementsAre("conv.weight out 0 in 1", "up.weight out 1 in 0", "fc.weight out 0 in 1",
                          "mm.weight out 1 in 0", "emb.weight out 0 in 1"));
}

TEST(Weights, LeavesProductsOfActivationsAlone) {
  Model model = parse_filled(R"(
input x : f32[4,4]
a = aten::matmul(x, x)
return a = a
)");
  EXPECT_TRUE(weights(model).empty());
}

TEST(Weights, LooksThroughTranspositions) {
  Model model = parse_filled(R"(
input x : f32[2,8]
parameter fc.weight : f32[5,8]
t = aten::t(fc.weight)
y = aten::mm(x, t)
return y = y
)");
  const auto found = weights(model);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].output_dim(), 0);
  EXPECT_EQ(found[0].input_dim(), 1);
}

TEST(Weights, CountsATiedWeightOnceWithTheLayoutOfItsLinearLayer) {
  Model model = parse_filled(R"(
input ids : i64[2,3]
parameter wte.weight alias head.weight : f32[10,4]
x = aten::embedding(wte.weight, ids)
y = aten::linear(x, wte.weight)
return y = y
)");
  const auto found = weights(model);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].uses().size(), 2u);
  EXPECT_EQ(found[0].kind(), OperatorKind::kLinear);
  EXPECT_THAT(found[0].aliases(), ElementsAre("head.weight"));
}

TEST(Weights, OfASetOfTensorsAreItsMatrices) {
  Model model = parse_filled("fc.weight : f32[2,2]\nfc.bias : f32[2]\nids : i64[3,3]");
  EXPECT_THAT(names(model), ElementsAre("fc.weight"));
}

const char* const kLinear = R"(
input x : f32[1,4]
parameter fc.weight : f32[2,4] = [[1, -4, 3, -2], [5, 0.5, -6, 7]]
linear = aten::linear(x, fc.weight) : f32[1,2] @ fc
return y = linear
)";

at::Tensor bools(const std::vector<int64_t>& flags) {
  return at::tensor(flags).to(at::kBool).view({2, 4});
}

TEST(WeightMask, IsANodeInFrontOfTheLayer) {
  Model model = parse_model(kLinear);
  Weight weight = weights(model)[0];
  EXPECT_EQ(weight.set_mask(bools({0, 1, 1, 1, 1, 0, 1, 1})), 2);
  EXPECT_EQ(weight.encoding(), "f32 mask");
  const at::Tensor x = at::ones({1, 4});
  EXPECT_TRUE(at::equal(model.forward({x})[0], at::tensor({-3.f, 6.f}).view({1, 2})));
  EXPECT_EQ(model.graph().nodes().front().op(), "aten::mul.Tensor");
}

TEST(WeightMask, IsAndedWithTheOneBefore) {
  Model model = parse_model(kLinear);
  weights(model)[0].set_mask(bools({0, 1, 1, 1, 1, 0, 1, 1}));
  Weight weight = weights(model)[0];
  EXPECT_EQ(weight.set_mask(bools({1, 0, 1, 1, 1, 1, 1, 1})), 1);
  EXPECT_EQ(model.graph().nodes().size(), 2u);
  EXPECT_TRUE(at::equal(weight.mask(), bools({0, 0, 1, 1, 1, 0, 1, 1})));
}

TEST(WeightMask, ThatZeroesNothingChangesNothing) {
  Model model = parse_model(kLinear);
  const std::string before = print(model);
  EXPECT_EQ(weights(model)[0].set_mask(bools({1, 1, 1, 1, 1, 1, 1, 1})), 0);
  EXPECT_EQ(print(model), before);
}

TEST(WeightEncode, ReplacesWeightAndMask) {
  Model model = parse_model(kLinear);
  Weight weight = weights(model)[0];
  weight.set_mask(bools({0, 1, 1, 1, 1, 0, 1, 1}));
  const at::Tensor masked = weight.effective();
  weight.encode(round_to_nearest(masked, 0, {8, true}));
  EXPECT_EQ(model.find_tensor("fc.weight"), nullptr);
  EXPECT_EQ(model.find_tensor("fc.weight_mask"), nullptr);
  const Weight again = weights(model)[0];
  EXPECT_EQ(again.name(), "fc.weight");
  EXPECT_EQ(again.encoding(), "int8 channel");
  EXPECT_EQ(again.bits_on_disk(), 8 * 8 + 2 * 32);
  EXPECT_TRUE(at::allclose(again.effective(), masked, 0, 0.04));
  EXPECT_TRUE(((again.effective() == 0) == (masked == 0)).all().item<bool>());
}

TEST(WeightEncode, TakesAMaskOnTop) {
  Model model = parse_model(kLinear);
  Weight weight = weights(model)[0];
  weight.encode(round_to_nearest(weight.effective(), 0, {4, true}));
  weight.set_mask(bools({0, 0, 1, 1, 1, 1, 1, 1}));
  const Weight again = weights(model)[0];
  EXPECT_EQ(again.encoding(), "int4 channel mask");
  EXPECT_EQ((again.effective() == 0).sum().item<int64_t>(), 3);  // 0.5 rounds to 0
}

TEST(WeightReplace, UndoesEveryEncoding) {
  Model model = parse_model(kLinear);
  Weight weight = weights(model)[0];
  weight.encode(round_to_nearest(weight.effective(), 0, {3, false}));
  weight.set_mask(bools({0, 0, 1, 1, 1, 1, 1, 1}));
  weight.replace(at::ones({2, 4}));
  EXPECT_EQ(weight.name(), "fc.weight");
  EXPECT_EQ(model.graph().nodes().size(), 1u);
  EXPECT_TRUE(at::equal(model.tensor("fc.weight"), at::ones({2, 4})));
}

TEST(WeightReplace, KeepsTheTensorUnderAMask) {
  Model model = parse_model(kLinear);
  Weight weight = weights(model)[0];
  weight.set_mask(bools({0, 0, 1, 1, 1, 1, 1, 1}));
  weight.replace(weight.effective());
  EXPECT_EQ(model.tensors().size(), 1u);
  EXPECT_EQ(weight.encoding(), "f32");
  EXPECT_EQ((model.tensor("fc.weight") == 0).sum().item<int64_t>(), 2);
}

TEST(WeightEncode, OfASetOfTensorsKeepsTheNameOfTheOutput) {
  Model model = parse_model("fc.weight : f32[2,2] = [[1, -4], [3, -2]]");
  Weight weight = weights(model)[0];
  weight.encode(round_to_nearest(weight.effective(), 0, {4, true}));
  EXPECT_THAT(names(model), ElementsAre("fc.weight"));
  EXPECT_EQ(weights(model)[0].encoding(), "int4 channel");
  EXPECT_EQ(model.graph().outputs()[0].name, "fc.weight");
}

TEST(WeightSets, AreTensorsLayersOrTheModel) {
  Model model = parse_filled("a.w : f32[2,2]\na.v : f32[2,3]\nb.w : f32[4,2]");
  std::vector<Weight> all = weights(model);
  EXPECT_EQ(weight_sets(all, Scope::kTensor).size(), 3u);
  EXPECT_EQ(weight_sets(all, Scope::kLayer).size(), 2u);
  const auto whole = weight_sets(all, Scope::kModel);
  ASSERT_EQ(whole.size(), 1u);
  EXPECT_EQ(whole[0].elements(), 18);
}

}  // namespace
}  // namespace compress
