// Tests of passes/quantize/weight_variable.

#include "passes/quantize/weight_variable.h"

#include "compress/encoding_bits.h"
#include "passes/quantize/round_to_nearest.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <gtest/gtest.h>

namespace compress {
namespace {

RoundedWeight random_weight(bool symmetric, int64_t channel_dim = 0) {
  at::manual_seed(3);
  RoundedWeight weight{"w", at::randn({6, 4, 3, 3}), {}, channel_dim, {}};
  weight.grid = grid_of(round_to_nearest(
      weight.elements, channel_dim, {3, symmetric, Granularity::channel(), RangeMethod::kMse}));
  return weight;
}

// h starts at the fraction, so that floor + h is the weight itself wherever it is inside the range.
TEST(WeightVariable, StartsAtTheWeightThatIsRounded) {
  for (const bool symmetric : {true, false}) {
    const RoundedWeight weight = random_weight(symmetric);
    const auto variable = rounding_variable(weight);
    const at::Tensor steps = as_matrix(weight.elements, 0) / weight.grid.scale + weight.grid.zero;
    const at::Tensor clipped =
        (steps.clamp(0, weight.grid.last()) - weight.grid.zero) * weight.grid.scale;
    EXPECT_TRUE(at::allclose(as_matrix(variable->effective(), 0), clipped, 1e-4, 1e-4));
  }
}

TEST(WeightVariable, IsNearestRoundingBeforeAnythingIsLearned) {
  for (const int64_t dim : {0, 1}) {
    const RoundedWeight weight = random_weight(true, dim);
    const at::Tensor nearest = dequantize(weight.nearest());
    for (const auto& variable : {rounding_variable(weight), free_variable(weight, 1)}) {
      EXPECT_TRUE(at::allclose(dequantize(variable->result()), nearest, 1e-6, 1e-6));
    }
    EXPECT_TRUE(at::allclose(free_variable(weight, 1)->effective(), nearest, 1e-6, 1e-6));
  }
}

TEST(WeightVariable, RoundsWhereTheLogitsPoint) {
  const RoundedWeight weight = random_weight(false);
  const auto variable = rounding_variable(weight);
  variable->parameters().at(0).tensor.detach().fill_(5);
  const at::Tensor up = as_matrix(dequantize(variable->result()), 0);
  const at::Tensor ceiling =
      ((as_matrix(weight.elements, 0) / weight.grid.scale).floor() + 1 + weight.grid.zero)
          .clamp(0, weight.grid.last());
  EXPECT_TRUE(at::allclose(up, (ceiling - weight.grid.zero) * weight.grid.scale));
  EXPECT_TRUE(at::allclose(up, as_matrix(variable->effective(), 0))) << "soft and hard meet";
  EXPECT_EQ(variable->undecided(), 0);
}

TEST(WeightVariable, KeepsMaskedElementsAtZero) {
  RoundedWeight weight = random_weight(true);
  weight.mask = at::rand(weight.elements.sizes()) > 0.5;
  weight.elements = weight.elements * weight.mask;
  for (const auto& variable : {rounding_variable(weight), free_variable(weight, 1)}) {
    for (const OptimizedParameter& one : variable->parameters()) {
      one.tensor.detach().add_(3);
    }
    const at::Tensor zeroed = weight.mask.logical_not();
    EXPECT_EQ(variable->effective().index({zeroed}).abs().max().item<float>(), 0);
    EXPECT_EQ(dequantize(variable->result()).index({zeroed}).abs().max().item<float>(), 0);
  }
}

// d/ds of s * (clamp(round(w / s), low, high)) = round(w / s) - w / s inside, low or high outside
// (Esser et al., ICLR 2020, equation 3); the weight's own gradient is 1 inside and 0 outside.
TEST(WeightVariable, PassesGradientsStraightThroughTheRounding) {
  const RoundedWeight weight = random_weight(true);
  const auto variable = free_variable(weight, 1);
  const std::vector<OptimizedParameter> parameters = variable->parameters();
  const std::vector<at::Tensor> slopes = torch::autograd::grad(
      {variable->effective().sum()}, {parameters[0].tensor, parameters[1].tensor});
  const at::Tensor steps = as_matrix(weight.elements, 0) / weight.grid.scale;
  const at::Tensor inside = steps.round().ge(-4).logical_and(steps.round().le(3));
  EXPECT_TRUE(at::allclose(slopes[0], inside * weight.grid.scale));
  const at::Tensor of_scale =
      at::where(inside, steps.round() - steps, steps.round().clamp(-4, 3)).sum(1, true);
  EXPECT_TRUE(at::allclose(slopes[1], of_scale * weight.grid.scale, 1e-4, 1e-4));
}

}  // namespace
}  // namespace compress
