// Tests of passes/fold/fold_batch_norm.

#include "passes/fold/fold_batch_norm.h"

#include "compress/encoding_bits.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

namespace compress {
namespace {

BatchNorm random_norm(int64_t channels) {
  return {at::randn({channels}), at::rand({channels}) + 0.1, at::randn({channels}),
          at::randn({channels}), 1e-3};
}

at::Tensor run(const BatchNorm& norm, const at::Tensor& x) {
  return at::batch_norm(x, norm.weight, norm.bias, norm.mean, norm.variance, false, 0.1, norm.eps,
                        false);
}

// Sums of a hundred products in float: a few 1e-5 of the outputs' size.
void expect_close(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_TRUE(at::allclose(a, b, 1e-4, 1e-4)) << (a - b).abs().max().item<float>();
}

TEST(FoldBatchNormArithmetic, EqualsTheBatchNormBehindAConvolution) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 6, 7, 7}), w = at::randn({8, 3, 3, 3}), b = at::randn({8});
  const BatchNorm norm = random_norm(8);
  const at::Tensor folded = scale_output_channels(w, channel_factors(norm), 0, 2);
  expect_close(at::conv2d(x, folded, folded_bias(b, norm, at::kFloat), 1, 1, 1, 2),
               run(norm, at::conv2d(x, w, b, 1, 1, 1, 2)));
}

TEST(FoldBatchNormArithmetic, EqualsTheBatchNormBehindAGroupedTransposedConvolution) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({2, 6, 5, 5}), w = at::randn({6, 4, 3, 3});
  const BatchNorm norm = random_norm(8);
  const at::Tensor folded = scale_output_channels(w, channel_factors(norm), 1, 2);
  expect_close(at::conv_transpose2d(x, folded, folded_bias({}, norm, at::kFloat), 2, 1, 1, 2),
               run(norm, at::conv_transpose2d(x, w, {}, 2, 1, 1, 2)));
}

TEST(FoldBatchNormArithmetic, TakesANormWithoutWeights) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({5, 4}), w = at::randn({3, 4});
  BatchNorm norm = random_norm(3);
  norm.weight = at::Tensor();
  norm.bias = at::Tensor();
  expect_close(at::linear(x, scale_output_channels(w, channel_factors(norm), 0, 1),
                          folded_bias({}, norm, at::kFloat)),
               run(norm, at::linear(x, w)));
}

// Two bits: codes 0 .. 3 stand for -2 .. 1, and 2 has no code.
TEST(FoldBatchNormArithmetic, MirrorsSymmetricCodesWhereItCan) {
  QuantizedTensor weight;
  weight.sizes = {2, 3};
  weight.bits = 2;
  weight.group_size = 3;
  weight.scale = at::tensor({0.5F, 2.0F}).view({2, 1});
  weight.fields = pack_codes(at::tensor({1, 2, 3, 0, 1, 3}, at::kByte).view({2, 3}), 2);
  const std::optional<QuantizedTensor> scaled = scale_rows(weight, at::tensor({-4.0, 3.0}));
  ASSERT_TRUE(scaled);
  EXPECT_TRUE(
      at::equal(dequantize(*scaled), at::tensor({2.F, 0.F, -2.F, -12.F, -6.F, 6.F}).view({2, 3})));
  EXPECT_FALSE(scale_rows(weight, at::tensor({4.0, -3.0})));
}

}  // namespace
}  // namespace compress
