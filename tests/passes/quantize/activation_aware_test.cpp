// Tests of passes/quantize/activation_aware and passes/quantize/attention_scores.

#include "passes/quantize/activation_aware.h"

#include "compress/encoding.h"
#include "compress/graph/shapes.h"
#include "compress/zoo/zoo.h"
#include "passes/quantize/attention_scores.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <set>

namespace compress::testing {
namespace {

using ::testing::ElementsAre;

TEST(ActivationScales, AreTheGoldenOnes) {
  const at::Tensor means = at::tensor({.1, .2, 4.0, .05}, at::kDouble);
  EXPECT_TRUE(at::allclose(activation_scales(means, .5),
                           at::tensor({.472871, .668740, 2.990698, .334370}, at::kDouble), 0,
                           1e-6));
  EXPECT_TRUE(at::allclose(activation_scales(means, .95),
                           at::tensor({.240997, .465575, 8.016185, .124748}, at::kDouble), 0,
                           1e-6));
  EXPECT_TRUE(at::equal(activation_scales(means, 0), at::ones({4}, at::kDouble)));
}

struct Layer {
  at::Tensor weight, inputs;
  AwareLayer aware() const {
    const at::Tensor x = inputs.to(at::kDouble);
    return {weight, 0, 1, (x.t().matmul(x) / x.size(0)).unsqueeze(0)};
  }
};

// Two of 64 channels carry most of the inputs.
Layer layer_with_outliers() {
  at::manual_seed(4);
  at::Tensor x = at::randn({500, 64});
  x.select(1, 5).mul_(30);
  x.select(1, 40).mul_(15);
  return {at::randn({32, 64}), x};
}

const RoundToNearest kThreeBits{3, false, Granularity::group(32)};

double measured(const Layer& layer, const at::Tensor& weight) {
  const at::Tensor x = layer.inputs.to(at::kDouble);
  const at::Tensor off = x.matmul((weight - layer.weight).to(at::kDouble).t());
  return off.square().sum().item<double>() / static_cast<double>(x.size(0));
}

TEST(OutputError, IsThatOfTheOutputs) {
  const Layer layer = layer_with_outliers();
  const at::Tensor rough = dequantize(round_to_nearest(layer.weight, 0, kThreeBits));
  const double error = output_error(rough - layer.weight, layer.aware().gram);
  EXPECT_NEAR(error / measured(layer, rough), 1, 1e-4);
}

TEST(SearchScales, FindsTheBestOfTheGrid) {
  const Layer layer = layer_with_outliers();
  const at::Tensor means = layer.inputs.abs().mean(0);
  const ScaleSearch found = search_scales({layer.aware()}, means, kThreeBits, 20);
  double least = 1e300, ratio = 0;
  for (int step = 0; step < 20; ++step) {
    const at::Tensor s = activation_scales(means, step / 20.0).to(at::kFloat);
    const at::Tensor rough = dequantize(round_to_nearest(layer.weight * s, 0, kThreeBits)) / s;
    const double error = measured(layer, rough);
    if (error >= least) continue;
    least = error;
    ratio = step / 20.0;
  }
  EXPECT_DOUBLE_EQ(found.ratio, ratio);
  EXPECT_NEAR(found.error / least, 1, 1e-4);
  EXPECT_LT(found.error, .5 * found.error_before);
}

TEST(ClipWeight, ChoosesTheBestShareOfEachGroup) {
  const Layer layer = layer_with_outliers();
  const at::Tensor clipped = clip_weight(layer.aware(), kThreeBits);
  const at::Tensor gram = layer.aware().gram[0].to(at::kFloat);
  for (int64_t row : {0, 7, 31}) {
    for (int64_t first : {0, 32}) {
      const at::Tensor w = layer.weight[row].narrow(0, first, 32);
      const at::Tensor block = gram.narrow(0, first, 32).narrow(1, first, 32);
      double least = 1e300;
      at::Tensor best;
      for (int step = 0; step < 10; ++step) {
        const double limit = w.abs().max().item<double>() * (1 - step / 20.0);
        const at::Tensor tried = w.clamp(-limit, limit);
        const at::Tensor off =
            dequantize(round_to_nearest(tried.view({1, 32}), 0, kThreeBits))[0] - w;
        const double error = off.matmul(block).dot(off).item<double>();
        if (error >= least) continue;
        least = error;
        best = tried;
      }
      EXPECT_TRUE(at::allclose(clipped[row].narrow(0, first, 32), best, 1e-5, 1e-6)) << row;
    }
  }
}

TEST(ClipWeight, BearsRaggedGroupsAndGroupsOfConvolutions) {
  at::manual_seed(5);
  const at::Tensor weight = at::randn({6, 5, 3}), x = at::randn({2, 100, 15}).to(at::kDouble);
  const at::Tensor gram = at::bmm(x.transpose(1, 2), x) / 100;
  const RoundToNearest how{3, false, Granularity::group(8)};
  const at::Tensor clipped = clip_weight({weight, 0, 1, gram}, how);
  const auto error = [&](const at::Tensor& w) {
    return output_error((dequantize(round_to_nearest(w, 0, how)) - weight).view({6, 15}), gram);
  };
  EXPECT_EQ(clipped.sizes(), weight.sizes());
  EXPECT_LT(error(clipped), error(weight));
}

TEST(LayersOfAttentionScores, AreQueriesAndKeysHoweverTheyAreComputed) {
  const auto names = [](const Model& model) {
    std::set<std::string> paths;
    for (const Node* layer : layers_of_attention_scores(model)) paths.insert(layer->module_path);
    return paths;
  };
  EXPECT_THAT(names(zoo::build("nanogpt{layers=1,width=64,heads=2,context=16,vocabulary=11}")),
              ElementsAre("transformer.h.0.attn.c_attn"));
  EXPECT_THAT(names(parse_filled(R"(
input x : f32[2,3,8]
parameter q.weight : f32[8,8]
parameter k.weight : f32[8,8]
parameter v.weight : f32[8,8]
parameter o.weight : f32[8,8]
q = aten::linear(x, q.weight) @ q
k = aten::linear(x, k.weight) @ k
v = aten::linear(x, v.weight) @ v
t = aten::transpose.int(k, 1, 2)
s = aten::matmul(q, t)
p = aten::softmax.int(s, -1)
a = aten::matmul(p, v)
o = aten::linear(a, o.weight) @ o
y = aten::softmax.int(o, -1)
return y = y
)")),
              ElementsAre("k", "q"));
}

}  // namespace
}  // namespace compress::testing
