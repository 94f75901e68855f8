// The expected shift against the mean of outputs.

#include "passes/quantize/bias_correction.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

namespace compress {
namespace {

TEST(BiasCorrection, IsTheErrorTimesTheMeanByHand) {
  const at::Tensor error = at::tensor({0.1, -0.2, 0.3, 0.0}).view({2, 2});
  const at::Tensor shift = expected_output_shift(error, at::tensor({2.0, 1.0}), 0, 1);
  EXPECT_TRUE(at::allclose(shift, at::tensor({0.0, 0.6})));
  const at::Tensor in_out = expected_output_shift(error.t(), at::tensor({2.0, 1.0}), 1, 1);
  EXPECT_TRUE(at::equal(in_out, shift));
}

// Without padding, and with the mean of each channel the same under every tap, it is exact.
TEST(BiasCorrection, IsTheMeanOfAGroupedConvolutionsOutput) {
  at::manual_seed(1);
  const at::Tensor error = at::randn({6, 2, 3, 3}, at::kDouble);
  const at::Tensor mean = at::randn({4}, at::kDouble);
  const at::Tensor x = mean.view({1, 4, 1, 1}).expand({1, 4, 5, 5});
  const at::Tensor out = at::conv2d(x, error, {}, 1, at::IntArrayRef({0, 0}), 1, 2).mean({0, 2, 3});
  EXPECT_TRUE(at::allclose(expected_output_shift(error, mean, 0, 2), out));
}

}  // namespace
}  // namespace compress
