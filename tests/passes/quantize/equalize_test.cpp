// The arithmetic of equalization by hand.

#include "passes/quantize/equalize.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <vector>

namespace compress {
namespace {

at::Tensor pairs(std::vector<double> values) { return at::tensor(values); }

TEST(Equalize, GivesBothLayersTheGeometricMeanOfTheirRanges) {
  const at::Tensor first = pairs({8, 0.5}), second = pairs({0.5, 2});
  const at::Tensor s = equalizing_factors(first, second);
  EXPECT_TRUE(at::allclose(s, pairs({4, 0.5})));
  EXPECT_TRUE(at::allclose(first / s, pairs({2, 1})));
  EXPECT_TRUE(at::allclose(second * s, pairs({2, 1})));
}

TEST(Equalize, LeavesDeadChannelsAlone) {
  EXPECT_TRUE(at::equal(equalizing_factors(pairs({0, 3, 0}), pairs({2, 0, 0})),
                        at::ones({3}, at::kDouble)));
}

TEST(Equalize, SeesTheChannelsOfGroups) {
  // Two groups of two outputs and one input.
  const at::Tensor weight = pairs({1, -2, 3, 4}).view({4, 1, 1});
  const at::Tensor channels = by_channels(weight, 0, 2, 2);
  EXPECT_TRUE(at::equal(output_ranges(channels), pairs({1, 2, 3, 4})));
  EXPECT_TRUE(at::equal(input_ranges(channels), pairs({2, 4})));
  const at::Tensor scaled =
      scale_inputs(scale_outputs(channels, pairs({1, 10, 1, 10})), pairs({1, 100}));
  EXPECT_TRUE(
      at::equal(from_channels(scaled, weight, 0), pairs({1, -20, 300, 4000}).view({4, 1, 1})));
}

TEST(Equalize, SeesTheChannelsOfAnInOutMatrix) {
  const at::Tensor weight = pairs({1, 2, 3, 4, 5, 6}).view({3, 2});
  const at::Tensor channels = by_channels(weight, 1, 1, 3);
  EXPECT_TRUE(at::equal(output_ranges(channels), pairs({5, 6})));
  EXPECT_TRUE(at::equal(input_ranges(channels), pairs({2, 4, 6})));
  EXPECT_TRUE(at::equal(from_channels(channels, weight, 1), weight));
}

TEST(Equalize, AbsorbsWhatLiesThreeDeviationsAboveTheKink) {
  EXPECT_TRUE(at::allclose(absorbed_bias(pairs({2, 0.5, -1, 2}), pairs({0.5, 2, 0.5, -0.5})),
                           pairs({0.5, 0, 0, 0.5})));
}

TEST(Equalize, RespondsToAConstantAsTheLayerDoes) {
  at::manual_seed(1);
  const at::Tensor weight = at::randn({4, 3, 3, 3}, at::kDouble), c = at::rand({6}, at::kDouble);
  const at::Tensor x = c.view({1, 6, 1, 1}).expand({1, 6, 3, 3});
  const at::Tensor y = at::conv2d(x, weight, {}, 1, at::IntArrayRef({0, 0}), 1, 2).flatten();
  EXPECT_TRUE(at::allclose(response_to(by_channels(weight, 0, 2, 6), c), y));
}

}  // namespace
}  // namespace compress
