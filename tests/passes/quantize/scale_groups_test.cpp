// Tests of passes/quantize/scale_groups: what belongs to a group, and that scaling keeps outputs.

#include "passes/quantize/scale_groups.h"

#include "compress/graph/shapes.h"
#include "compress/zoo/zoo.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <algorithm>

namespace compress::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ScaleGroups {
 public:
  explicit ScaleGroups(Model model) : model_(std::move(model)) {
    propagate_shapes(model_);
    weights_ = weights(model_);
    groups_ = find_scale_groups(model_, weights_);
  }
  explicit ScaleGroups(std::string_view text) : ScaleGroups(parse_filled(text)) {}

  const std::vector<ScaleGroup>& all() const { return groups_; }
  std::vector<std::string> readers(size_t group) const {
    std::vector<std::string> names;
    for (const ScaledReader& reader : groups_.at(group).readers) {
      names.push_back(reader.weight->name());
    }
    return names;
  }

  // How far outputs move, relative to their size, when all groups get random scales.
  double change_of_outputs(const std::vector<at::Tensor>& inputs) {
    at::manual_seed(11);
    const at::Tensor before = model_.forward(inputs)[0];
    for (const ScaleGroup& group : groups_) {
      if (!group.obstacle.empty()) continue;
      apply_scales(model_, group, at::exp(at::randn({group.channels})));
    }
    const at::Tensor after = model_.forward(inputs)[0];
    return ((after - before).abs().max() / before.abs().max()).item<double>();
  }

 private:
  Model model_;
  std::vector<Weight> weights_;
  std::vector<ScaleGroup> groups_;
};

constexpr double kRounding = 1e-5;

TEST(ScaleGroups, ReachFromANormThroughReluAndPooling) {
  ScaleGroups groups(R"(
input x : f32[2,4,6,6]
parameter bn.weight : f32[4]
parameter bn.bias : f32[4]
buffer bn.running_mean : f32[4] = [0, 0.5, -1, 0]
buffer bn.running_var : f32[4] = [1, 2, 0.5, 1]
parameter conv.weight : f32[8,4,3,3]
parameter conv.bias : f32[8]
parameter fc.weight : f32[5,8]
n = aten::batch_norm(x, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 0.00001, true) @ bn
r = aten::relu(n)
c = aten::conv2d(r, conv.weight, conv.bias) @ conv
a = aten::relu(c)
p = aten::max_pool2d(a, [2, 2])
m = aten::mean.dim(p, [2, 3])
y = aten::linear(m, fc.weight) @ fc
return y = y
)");
  ASSERT_EQ(groups.all().size(), 2u);
  EXPECT_EQ(groups.all()[0].name, "bn");
  EXPECT_THAT(groups.readers(0), ElementsAre("conv.weight"));
  EXPECT_THAT(groups.readers(1), ElementsAre("fc.weight"));
  EXPECT_EQ(groups.all()[1].divided.size(), 2u);
  EXPECT_EQ(groups.all()[0].obstacle + groups.all()[1].obstacle, "");
  EXPECT_LT(groups.change_of_outputs({at::randn({2, 4, 6, 6})}), kRounding);
}

TEST(ScaleGroups, JoinAllLayersThatReadANorm) {
  ScaleGroups groups(R"(
input x : f32[2,3,8]
parameter ln.weight : f32[8]
parameter ln.bias : f32[8]
parameter q.weight : f32[8,8]
parameter k.weight : f32[8,8]
parameter up.weight : f32[16,8]
parameter gate.weight : f32[16,8]
parameter down.weight : f32[8,16]
n = aten::layer_norm(x, [8], ln.weight, ln.bias) @ ln
q = aten::linear(n, q.weight)
k = aten::linear(n, k.weight)
u = aten::linear(n, up.weight)
g = aten::linear(n, gate.weight)
s = aten::silu(g)
h = aten::mul.Tensor(s, u)
d = aten::linear(h, down.weight)
y = aten::cat([q, k, d], -1)
return y = y
)");
  ASSERT_EQ(groups.all().size(), 2u);
  EXPECT_THAT(groups.readers(0), ElementsAre("q.weight", "k.weight", "up.weight", "gate.weight"));
  EXPECT_THAT(groups.readers(1), ElementsAre("down.weight"));  // from `up`: silu scales nothing
  EXPECT_EQ(groups.all()[1].divided.at(0).name, "up.weight");
  EXPECT_LT(groups.change_of_outputs({at::randn({2, 3, 8})}), kRounding);
}

TEST(ScaleGroups, FollowMatricesOfTransformersThroughViews) {
  ScaleGroups groups(R"(
input x : f32[2,3,8]
parameter ln.weight : f32[8]
parameter fc.weight : f32[8,6]
parameter fc.bias : f32[6]
parameter out.weight : f32[6,4]
parameter out.bias : f32[4]
n = aten::layer_norm(x, [8], ln.weight)
v = aten::view(n, [-1, 8])
h = aten::addmm(fc.bias, v, fc.weight)
r = aten::relu(h)
y = aten::addmm(out.bias, r, out.weight)
return y = y
)");
  ASSERT_EQ(groups.all().size(), 2u);
  EXPECT_EQ(groups.all()[1].divided.at(1).dim, 1);  // [in, out]
  EXPECT_LT(groups.change_of_outputs({at::randn({2, 3, 8})}), kRounding);
}

TEST(ScaleGroups, FindTheNormsOfAGpt) {
  ScaleGroups groups(
      zoo::build("nanogpt{layers=2,width=64,heads=2,context=16,vocabulary=11,bias=1}"));
  std::vector<std::string> free, tied;
  for (const ScaleGroup& group : groups.all()) {
    (group.obstacle.empty() ? free : tied).push_back(group.name);
  }
  EXPECT_THAT(free, ElementsAre("transformer.h.0.ln_1", "transformer.h.0.ln_2",
                                "transformer.h.1.ln_1", "transformer.h.1.ln_2"));
  EXPECT_THAT(tied, ElementsAre("transformer.ln_f"));  // its reader is the table of tokens, too
  EXPECT_LT(groups.change_of_outputs({at::arange(22).remainder(11).view({2, 11})}), kRounding);
}

TEST(ScaleGroups, SayWhatElseReadsTheValue) {
  const ScaleGroups groups(R"(
input x : f32[2,8]
parameter ln.weight : f32[8]
parameter fc.weight : f32[8,8]
n = aten::layer_norm(x, [8], ln.weight)
h = aten::linear(n, fc.weight)
y = aten::add.Tensor(h, n)
return y = y
)");
  EXPECT_THAT(groups.all().at(0).obstacle, HasSubstr("aten::add.Tensor reads its output"));
}

TEST(ScaleGroups, RefuseAnOutputTheModelReturnsAndNormsWithoutWeights) {
  const ScaleGroups returned(R"(
input x : f32[2,8]
parameter ln.weight : f32[8]
parameter fc.weight : f32[8,8]
n = aten::layer_norm(x, [8], ln.weight)
y = aten::linear(n, fc.weight)
return y = y
return n = n
)");
  EXPECT_THAT(returned.all().at(0).obstacle, HasSubstr("returns"));
  const ScaleGroups bare(R"(
input x : f32[2,8]
parameter fc.weight : f32[8,8]
n = aten::layer_norm(x, [8])
y = aten::linear(n, fc.weight)
return y = y
)");
  EXPECT_THAT(bare.all().at(0).obstacle, HasSubstr("no weights"));
}

TEST(ScaleGroups, StopAtWhatIsNotHomogeneousOrSplitsChannels) {
  EXPECT_TRUE(ScaleGroups(R"(
input x : f32[2,8]
parameter a.weight : f32[8,8]
parameter b.weight : f32[8,8]
h = aten::linear(x, a.weight)
g = aten::gelu(h)
y = aten::linear(g, b.weight)
return y = y
)")
                  .all()
                  .empty());
  EXPECT_TRUE(ScaleGroups(R"(
input x : f32[2,8]
parameter a.weight : f32[8,8]
parameter b.weight : f32[4,4]
h = aten::linear(x, a.weight)
v = aten::view(h, [2, 2, 4])
y = aten::linear(v, b.weight)
return y = y
)")
                  .all()
                  .empty());
}

// A square would be divided twice.
TEST(ScaleGroups, RefuseAProductOfTheValueWithItself) {
  const ScaleGroups groups(R"(
input x : f32[2,8]
parameter a.weight : f32[8,8]
parameter b.weight : f32[8,8]
h = aten::linear(x, a.weight)
r = aten::relu(h)
g = aten::mul.Tensor(r, h)
y = aten::linear(g, b.weight)
return y = y
)");
  EXPECT_THAT(groups.all().at(0).obstacle, HasSubstr("multiplied by itself"));
}

}  // namespace
}  // namespace compress::testing
