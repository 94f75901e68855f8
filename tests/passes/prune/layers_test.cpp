// Tests of passes/prune/layers.

#include "compress/graph/shapes.h"
#include "compress/graph/verify.h"
#include "compress/zoo/zoo.h"
#include "passes/structured/residual_blocks.h"
#include "tests/passes/second_order/two_layers.h"
#include "tests/support/channels.h"

namespace compress::testing {
namespace {

// Three blocks of which the second does almost nothing.
Model blocks() {
  Model model = parse_filled(R"(
input x : f32[batch,12]
parameter a.weight : f32[12,12]
parameter b.weight : f32[12,12]
parameter c.weight : f32[12,12]
a = aten::linear(x, a.weight) : f32[batch,12] @ blocks.0.fc
s1 = aten::add.Tensor(x, a) : f32[batch,12]
b = aten::linear(s1, b.weight) : f32[batch,12] @ blocks.1.fc
s2 = aten::add.Tensor(b, s1) : f32[batch,12]
c = aten::linear(s2, c.weight) : f32[batch,12] @ blocks.2.fc
s3 = aten::add.Tensor(s2, c) : f32[batch,12]
return y = s3
)");
  model.set_tensor("b.weight", model.tensor("b.weight") * 1e-4);
  return model;
}

TEST(PruneLayers, LeaveOutTheBlockOfLeastEffect) {
  for (const char* criterion : {"output", "change"}) {
    SCOPED_TRACE(criterion);
    Model model = blocks();
    const Model original = model.clone();
    const RunResult result =
        run_passes(std::string("prune.layers{budget={macs=0.7},criterion=") + criterion + "}",
                   model, calibrated(samples()));
    EXPECT_EQ(result.steps.at(0).counts.at("blocks_removed"), 1);
    EXPECT_EQ(model.find_tensor("b.weight"), nullptr);
    EXPECT_NE(model.find_tensor("c.weight"), nullptr);
    EXPECT_LT(output_error(model, original), 1e-4);
    EXPECT_THAT(result.steps.at(0).messages.at(0), HasSubstr("blocks.1 is left out"));
  }
}

TEST(PruneLayers, PassOverBlocksThatWentWithAnother) {
  // The first block is the second's inside, and goes with it.
  Model model = parse_filled(R"(
input x : f32[batch,12]
parameter a.weight : f32[12,12]
parameter b.weight : f32[12,12]
parameter c.weight : f32[12,12]
parameter d.weight : f32[12,12]
parameter e.weight : f32[12,12]
a = aten::linear(x, a.weight) : f32[batch,12] @ outer.a
b = aten::linear(a, b.weight) : f32[batch,12] @ outer.inner.b
s1 = aten::add.Tensor(a, b) : f32[batch,12]
c = aten::linear(s1, c.weight) : f32[batch,12] @ outer.c
s2 = aten::add.Tensor(x, c) : f32[batch,12]
d = aten::linear(s2, d.weight) : f32[batch,12] @ last.d
s3 = aten::add.Tensor(s2, d) : f32[batch,12]
e = aten::linear(s3, e.weight) : f32[batch,12] @ head
return y = e
)");
  model.set_tensor("c.weight", model.tensor("c.weight") * 1e-5);
  model.set_tensor("b.weight", model.tensor("b.weight") * 1e-3);
  const RunResult result =
      run_passes("prune.layers{budget={macs=0.3},criterion=change}", model, calibrated(samples()));
  EXPECT_EQ(result.steps.at(0).counts.at("blocks_removed"), 2);
  EXPECT_EQ(weights(std::as_const(model)).size(), 1);
}

TEST(PruneLayers, GoOnUntilTheBudgetIsMet) {
  Model model = blocks();
  const RunResult result = run_passes("prune.layers{budget={parameters=0.4},keep=[blocks.1]}",
                                      model, calibrated(samples()));
  EXPECT_EQ(result.steps.at(0).counts.at("blocks_removed"), 2);
  EXPECT_NE(model.find_tensor("b.weight"), nullptr);
}

TEST(PruneLayers, FindTheBlocksOfKnownNetworks) {
  // Two of the nine blocks change sizes: by slices and padding, by a convolution.
  for (const char* name : {"resnet20-cifar10", "resnet20b-cifar10"}) {
    SCOPED_TRACE(name);
    Model resnet = zoo::build(name);
    EXPECT_EQ(residual_blocks(resnet).size(), 9u);
  }
  Model bottlenecks = zoo::build("resnet50");
  EXPECT_EQ(residual_blocks(bottlenecks).size(), 16u);
  // Attention and MLP of each layer.
  Model gpt = zoo::build("nanogpt{layers=3,heads=2,width=16,context=8}");
  EXPECT_EQ(residual_blocks(gpt).size(), 6u);
}

TEST(PruneLayers, KeepASkipConnectionThatChangesSizes) {
  Model model = zoo::build("resnet20b-cifar10");
  for (ResidualBlock& block : residual_blocks(model)) {
    if (block.name == "layer2.0") {
      skip_block(model, block);
      break;
    }
  }
  EXPECT_EQ(model.find_tensor("layer2.0.conv1.weight"), nullptr);
  EXPECT_NE(model.find_tensor("layer2.0.downsample.0.weight"), nullptr);
  verify(model);
  EXPECT_EQ(model.forward(example_inputs(model))[0].sizes().vec(), (std::vector<int64_t>{2, 10}));
}

TEST(PruneLayers, ParallelBranchesAreNoSkipConnections) {
  // As many layers on either side; and two embeddings, of which neither leads around anything.
  Model model = parse_filled(R"(
input x : f32[batch,12]
input tokens : i64[batch]
parameter a.weight : f32[12,12]
parameter b.weight : f32[12,12]
parameter c.weight : f32[12,12]
parameter d.weight : f32[12,12]
parameter e.weight : f32[12,12]
a = aten::linear(x, a.weight) : f32[batch,12]
b = aten::linear(a, b.weight) : f32[batch,12]
c = aten::linear(a, c.weight) : f32[batch,12]
s1 = aten::add.Tensor(b, c) : f32[batch,12]
d = aten::embedding(d.weight, tokens) : f32[batch,12]
e = aten::embedding(e.weight, tokens) : f32[batch,12]
s2 = aten::add.Tensor(d, e) : f32[batch,12]
return y = s1
return z = s2
)");
  EXPECT_TRUE(residual_blocks(model).empty());
}

// Without the inner block the outer one has one layer on either side, and is a block all the same.
TEST(PruneLayers, AreThoseOfTheModelAsItWas) {
  Model model = parse_filled(R"(
input x : f32[batch,12]
parameter p.weight : f32[12,12]
parameter a.weight : f32[12,12]
parameter f.weight : f32[12,12]
parameter d.weight : f32[12,12]
p = aten::linear(x, p.weight) : f32[batch,12] @ stem
a = aten::linear(p, a.weight) : f32[batch,12] @ outer.a
f = aten::linear(a, f.weight) : f32[batch,12] @ outer.inner.f
s1 = aten::add.Tensor(a, f) : f32[batch,12]
d = aten::linear(p, d.weight) : f32[batch,12] @ down
s2 = aten::add.Tensor(d, s1) : f32[batch,12]
return y = s2
)");
  model.set_tensor("f.weight", model.tensor("f.weight") * 1e-4);
  const RunResult result =
      run_passes("prune.layers{budget={macs=0.5}}", model, calibrated(samples()));
  EXPECT_EQ(result.steps.at(0).counts.at("blocks_removed"), 2);
  EXPECT_EQ(weights(std::as_const(model)).size(), 2);  // the stem and the skip connection
}

TEST(PruneLayers, RefuseAKeepThatMatchesNothing) {
  Model model = blocks();
  try {
    run_passes("prune.layers{keep=[blocks.9]}", model, calibrated(samples()));
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("`blocks.9` matches no block"));
  }
}

TEST(PruneLayers, RefuseBeforeAnythingIsChanged) {
  Model model = blocks();
  EXPECT_THAT(refusal("prune.layers", model), HasSubstr("needs calibration data"));
  Model plain = parse_filled(kTwoLayers);
  try {
    run_passes("prune.layers", plain, calibrated(samples()));
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no residual block that can be left out"));
  }
}

}  // namespace
}  // namespace compress::testing
