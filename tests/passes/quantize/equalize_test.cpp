// The arithmetic of equalization by hand.

#include "passes/quantize/equalize.h"

#include "tests/support/tensors.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

namespace compress {
namespace {

using testing::doubles;

TEST(Equalize, GivesBothLayersTheGeometricMeanOfTheirRanges) {
  const at::Tensor first = doubles({8, 0.5}), second = doubles({0.5, 2});
  const at::Tensor s = equalizing_factors(first, second);
  EXPECT_TRUE(at::allclose(s, doubles({4, 0.5})));
  EXPECT_TRUE(at::allclose(first / s, doubles({2, 1})));
  EXPECT_TRUE(at::allclose(second * s, doubles({2, 1})));
}

TEST(Equalize, LeavesDeadChannelsAlone) {
  EXPECT_TRUE(at::equal(equalizing_factors(doubles({0, 3, 0}), doubles({2, 0, 0})),
                        at::ones({3}, at::kDouble)));
}

TEST(Equalize, SeesTheChannelsOfGroups) {
  // Two groups of two outputs and one input.
  const at::Tensor weight = doubles({1, -2, 3, 4}).view({4, 1, 1});
  const at::Tensor channels = by_channels(weight, 0, 2, 2);
  EXPECT_TRUE(at::equal(output_ranges(channels), doubles({1, 2, 3, 4})));
  EXPECT_TRUE(at::equal(input_ranges(channels), doubles({2, 4})));
  const at::Tensor scaled =
      scale_inputs(scale_outputs(channels, doubles({1, 10, 1, 10})), doubles({1, 100}));
  EXPECT_TRUE(
      at::equal(from_channels(scaled, weight, 0), doubles({1, -20, 300, 4000}).view({4, 1, 1})));
}

TEST(Equalize, SeesTheChannelsOfAnInOutMatrix) {
  const at::Tensor weight = doubles({1, 2, 3, 4, 5, 6}).view({3, 2});
  const at::Tensor channels = by_channels(weight, 1, 1, 3);
  EXPECT_TRUE(at::equal(output_ranges(channels), doubles({5, 6})));
  EXPECT_TRUE(at::equal(input_ranges(channels), doubles({2, 4, 6})));
  EXPECT_TRUE(at::equal(from_channels(channels, weight, 1), weight));
}

TEST(Equalize, AbsorbsWhatLiesThreeDeviationsAboveTheKink) {
  EXPECT_TRUE(at::allclose(absorbed_bias(doubles({2, 0.5, -1, 2}), doubles({0.5, 2, 0.5, -0.5})),
                           doubles({0.5, 0, 0, 0.5})));
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
