// Tests of passes/quantize/reconstruction_units.

#include "passes/quantize/reconstruction_units.h"

#include "compress/zoo/zoo.h"
#include "tests/support/models.h"

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> describe(const std::vector<ReconstructionUnit>& units) {
  std::vector<std::string> lines;
  for (const ReconstructionUnit& unit : units) {
    std::string line = unit.name + ":";
    for (const Value* input : unit.inputs) line += " " + input->name();
    lines.push_back(line + " > " + unit.output->name());
  }
  return lines;
}

std::vector<std::string> units_of(const Model& model, UnitKind kind) {
  const std::vector<Weight> all = weights(model);
  return describe(reconstruction_units(model, all, kind));
}

// A stem, a residual block with a projection, and a head behind pooling.
Model residual_network() {
  return testing::parse_filled(R"(
input x : f32[batch,4,6,6]
parameter stem.weight : f32[8,4,3,3]
parameter block.a.weight : f32[8,8,3,3]
parameter block.b.weight : f32[8,8,3,3]
parameter block.short.weight : f32[8,8,1,1]
parameter fc.weight : f32[16,8]
stem = aten::conv2d(x, stem.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ stem
in = aten::relu(stem) : f32[batch,8,6,6]
a = aten::conv2d(in, block.a.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ block.a
middle = aten::relu(a) : f32[batch,8,6,6]
b = aten::conv2d(middle, block.b.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ block.b
short = aten::conv2d(in, block.short.weight, none, [1, 1], [0, 0], [1, 1], 1) : f32[batch,8,6,6] @ block.short
sum = aten::add.Tensor(b, short) : f32[batch,8,6,6]
out = aten::relu(sum) : f32[batch,8,6,6]
mean = aten::mean.dim(out, [2, 3]) : f32[batch,8]
logits = aten::linear(mean, fc.weight, none) : f32[batch,16] @ fc
return output = logits
)");
}

TEST(ReconstructionUnits, AreBlocksBetweenSingleLiveTensors) {
  EXPECT_THAT(units_of(residual_network(), UnitKind::kBlock),
              ElementsAre("stem: x > in", "block: in > out", "fc: out > logits"));
}

TEST(ReconstructionUnits, AreLayersWithTheirActivationFunctions) {
  EXPECT_THAT(units_of(residual_network(), UnitKind::kLayer),
              ElementsAre("stem: x > in", "block.a: in > middle", "block.b: middle > b",
                          "block.short: in > short", "fc: mean > logits"));
}

TEST(ReconstructionUnits, TakeSelectedWeightsOnly) {
  const Model model = residual_network();
  const std::vector<Weight> all = weights(model);
  const std::vector<Weight> some{all[1], all[2]};
  const std::vector<ReconstructionUnit> units = reconstruction_units(model, some, UnitKind::kBlock);
  ASSERT_EQ(units.size(), 1u);
  EXPECT_THAT(units[0].weights, ElementsAre(0u, 1u));
  EXPECT_EQ(units[0].name, "block");
}

// An input of the model that every layer may use does not make two tensors alive.
TEST(ReconstructionUnits, TakeInputsOfTheModelBeside) {
  const Model model = testing::parse_filled(R"(
input x : f32[batch,8]
input scale : f32[batch,8]
parameter a.weight : f32[8,8]
parameter b.weight : f32[8,8]
a = aten::linear(x, a.weight, none) : f32[batch,8] @ a
scaled = aten::mul.Tensor(a, scale) : f32[batch,8]
b = aten::linear(scaled, b.weight, none) : f32[batch,8] @ b
return output = b
)");
  EXPECT_THAT(units_of(model, UnitKind::kBlock), ElementsAre("a: x > a", "b: a scale > b"));
}

TEST(ReconstructionUnits, LayersBehindTheLastCutStandAlone) {
  const Model model = testing::parse_filled(R"(
input x : f32[batch,8]
parameter a.weight : f32[8,8]
parameter b.weight : f32[8,8]
a = aten::linear(x, a.weight, none) : f32[batch,8] @ a
b = aten::linear(x, b.weight, none) : f32[batch,8] @ b
return left = a
return right = b
)");
  EXPECT_THAT(units_of(model, UnitKind::kBlock), ElementsAre("a: x > a", "b: x > b"));
}

TEST(ReconstructionUnits, FindTheNineBlocksOfResNet20) {
  const Model model = zoo::build("resnet20-cifar10");
  const std::vector<Weight> all = weights(model);
  const std::vector<ReconstructionUnit> units = reconstruction_units(model, all, UnitKind::kBlock);
  ASSERT_EQ(units.size(), 11u);
  EXPECT_EQ(units[1].name, "layer1.0");
  EXPECT_EQ(units[9].name, "layer3.2");
  for (size_t i = 1; i <= 9; ++i) EXPECT_EQ(units[i].weights.size(), 2u);
}

}  // namespace
}  // namespace compress
