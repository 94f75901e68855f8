// Tests of passes/quantize/learned_step.

#include "passes/quantize/learned_step.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <gtest/gtest.h>

#include <cmath>

namespace compress {
namespace {

TEST(LearnedStep, HasTheCodesOfThePaper) {
  EXPECT_EQ(code_range(2, true).low, -2);
  EXPECT_EQ(code_range(2, true).high, 1);
  EXPECT_EQ(code_range(4, false).low, 0);
  EXPECT_EQ(code_range(4, false).high, 15);
}

// 2 * 0.75 / sqrt(7) and 1 / sqrt(100 * 7).
TEST(LearnedStep, StartsAtTwiceTheMeanMagnitude) {
  EXPECT_NEAR(first_step(at::tensor(0.75), code_range(4, true)).item<double>(), 0.566947, 1e-6);
  EXPECT_NEAR(step_gradient_factor(100, code_range(4, true)), 0.0377964, 1e-7);
  EXPECT_EQ(first_step(at::zeros({2}), code_range(4, true)).min().item<float>(), 1);
}

// Equation 3 by hand, step 0.5 and two bits: 0.1 and -0.6 round to 0 and -1 (0.2 steps and 1.2),
// 3 and -4 are clipped at 1 and -2.
TEST(LearnedStep, GradientOfTheOperatorIsThatOfThePaper) {
  const CodeRange codes = code_range(2, true);
  const at::Tensor x = at::tensor({0.1f, -0.6f, 3.f, -4.f}).set_requires_grad(true);
  const at::Tensor step = at::tensor({0.5f}).set_requires_grad(true);
  const double factor = step_gradient_factor(4, codes);
  const at::Tensor weights = at::tensor({1.f, 10.f, 100.f, 1000.f});
  const at::Tensor y = at::_fake_quantize_learnable_per_tensor_affine(
      x, step, at::zeros({1}), codes.low, codes.high, factor);
  EXPECT_TRUE(at::allclose(y, at::tensor({0.f, -0.5f, 0.5f, -1.f})));
  const auto slopes = torch::autograd::grad({(y * weights).sum()}, {x, step});
  EXPECT_TRUE(at::allclose(slopes[0], at::tensor({1.f, 10.f, 0.f, 0.f})));
  const double by_hand = (0 - 0.2) * 1 + (-1 + 1.2) * 10 + 1 * 100 + -2 * 1000;
  EXPECT_NEAR(slopes[1].item<double>(), by_hand * 0.5, 1e-2);  // 1 / sqrt(4 * 1)
}

TEST(LearnedStep, PacksWhatTheOperatorShows) {
  at::manual_seed(1);
  const at::Tensor weight = at::randn({6, 4, 3, 3});
  for (const int64_t dim : {0, 1}) {
    for (const int bits : {2, 3, 8}) {
      const CodeRange codes = code_range(bits, true);
      const at::Tensor step = first_step(at::rand({weight.size(dim)}) + 0.1, codes);
      const at::Tensor shown = at::_fake_quantize_learnable_per_channel_affine(
          weight, step, at::zeros_like(step), dim, codes.low, codes.high, 1);
      const QuantizedTensor packed = quantize_with_step(weight, step, dim, bits);
      EXPECT_TRUE(at::equal(dequantize(packed), shown)) << dim << ' ' << bits;
    }
  }
}

}  // namespace
}  // namespace compress
