// Tests of passes/second_order/quantize_columns.

#include "passes/second_order/quantize_columns.h"

#include "passes/quantize/round_to_nearest.h"
#include "tests/passes/second_order/reference.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gtest/gtest.h>

namespace compress::testing {
namespace {

// A worked example, computed in double precision: four inputs of six samples, two outputs, one
// affine grid a row, 1 % damping.
struct Golden {
  at::Tensor weight = at::tensor({.31f, -.62f, .87f, .14f, -.45f, .23f, .05f, -.98f}).view({2, 4});
  at::Tensor inputs = at::tensor({1.,  .5, -.3, .8, -1., .2,  .9, .4,  -.2, .9,  -1.1, .1,
                                  -.5, 1., .7,  .2, .3,  -.8, .2, -.6, 1.,  -.4, .5,   .9},
                                 at::kDouble)
                          .view({4, 6});
  at::Tensor gram() const { return inputs.matmul(inputs.t()).mul(2. / 6); }
  // The error on the data alone, per sample.
  double data_error(const at::Tensor& changed) const {
    return output_error(weight, changed, inputs.matmul(inputs.t()).div(6));
  }
};

QuantizeColumns affine(int bits) {
  QuantizeColumns how;
  how.grid = {bits, /*symmetric=*/false, GridRange::kMinmax};
  how.act_order = false;
  return how;
}

TEST(QuantizeColumns, MatchesTheGoldenVectorOfTwoBits) {
  const Golden golden;
  const ColumnCodes found = quantize_columns(golden.weight, golden.gram().unsqueeze(0), affine(2));
  const at::Tensor expected =
      at::tensor({.496667f, -.496667f, .993333f, .496667f, -.403333f, 0.f, 0.f, -.806667f})
          .view({2, 4});
  EXPECT_TRUE(at::allclose(found.weight, expected, 0, 1e-5));
  EXPECT_NEAR(found.error / 2, .100538, 1e-5);
  EXPECT_NEAR(golden.data_error(found.weight), .099232, 1e-5);
}

TEST(QuantizeColumns, MatchesTheGoldenVectorOfThreeBits) {
  const Golden golden;
  const ColumnCodes found = quantize_columns(golden.weight, golden.gram().unsqueeze(0), affine(3));
  const at::Tensor expected =
      at::tensor({.212857f, -.425714f, .851429f, .212857f, -.518571f, .172857f, 0.f, -1.037143f})
          .view({2, 4});
  EXPECT_TRUE(at::allclose(found.weight, expected, 0, 1e-5));
  EXPECT_NEAR(found.error / 2, .011899, 1e-5);
  EXPECT_NEAR(golden.data_error(found.weight), .011588, 1e-5);
}

at::Tensor decode(const ColumnCodes& found, int64_t group_size) {
  const auto spread = [&](const at::Tensor& per_group) {
    return per_group.to(at::kFloat)
        .repeat_interleave(group_size, 1)
        .narrow(1, 0, found.codes.size(1));
  };
  return (found.codes.to(at::kFloat) - spread(found.zero)) * spread(found.scale);
}

TEST(QuantizeColumns, HasTheGridsOfRoundToNearest) {
  at::manual_seed(4);
  const at::Tensor weight = at::randn({37, 50}), gram = correlated_gram(50, 200, 4).unsqueeze(0);
  for (const bool symmetric : {true, false}) {
    for (const Granularity& granularity :
         {Granularity::tensor(), Granularity::channel(), Granularity::group(16)}) {
      QuantizeColumns how = affine(4);
      how.grid.symmetric = symmetric;
      how.granularity = granularity;
      const ColumnCodes found = quantize_columns(weight, gram, how);
      const QuantizedTensor nearest = round_to_nearest(weight, 0, {4, symmetric, granularity});
      EXPECT_TRUE(at::equal(found.scale, nearest.scale)) << granularity.text();
      if (!symmetric) {
        EXPECT_TRUE(at::equal(found.zero, nearest.zero_point));
      }
      EXPECT_TRUE(at::equal(found.weight, decode(found, nearest.group_size)));
    }
  }
}

TEST(QuantizeColumns, WithoutCorrelationIsRoundToNearest) {
  at::manual_seed(5);
  const at::Tensor weight = at::randn({20, 24});
  const at::Tensor gram = at::diag(at::rand({24}, at::kDouble) + 0.5).unsqueeze(0);
  for (const bool act_order : {false, true}) {
    QuantizeColumns how = affine(3);
    how.act_order = act_order;
    const ColumnCodes found = quantize_columns(weight, gram, how);
    const QuantizedTensor nearest = round_to_nearest(weight, 0, {3, false});
    EXPECT_TRUE(at::equal(found.weight, dequantize(nearest)));
  }
}

TEST(QuantizeColumns, FollowsTheReferenceThroughItsGroups) {
  at::manual_seed(6);
  const at::Tensor weight = at::randn({5, 21}), gram = correlated_gram(21, 90, 6);
  QuantizeColumns how = affine(3);
  how.granularity = Granularity::group(8);
  how.damping = 0;
  how.static_groups = false;
  // Each group's grid is that of the weights when its turn comes.
  at::Tensor scale, zero;
  const at::Tensor all = at::arange(21);
  at::Tensor chosen = weight.to(at::kDouble).clone();
  for (int64_t i = 0; i < 21; ++i) {
    const at::Tensor left = i == 0 ? chosen.clone()
                                   : least_squares(weight.to(at::kDouble), chosen, gram,
                                                   all.slice(0, 0, i), all.slice(0, i));
    if (i % 8 == 0) {
      const at::Tensor group = left.narrow(1, 0, std::min<int64_t>(8, 21 - i));
      const at::Tensor low = group.amin(1).clamp_max(0), high = group.amax(1).clamp_min(0);
      scale = (high - low) / 7;
      zero = (-low / scale).round();
    }
    const at::Tensor codes = ((left.select(1, 0) / scale).round() + zero).clamp(0, 7);
    chosen.select(1, i).copy_((codes - zero) * scale);
  }
  const ColumnCodes found = quantize_columns(weight, gram.unsqueeze(0), how);
  EXPECT_TRUE(at::allclose(found.weight.to(at::kDouble), chosen, 0, 1e-4));
}

TEST(QuantizeColumns, ErrsLessThanRoundToNearest) {
  at::manual_seed(7);
  const at::Tensor weight = at::randn({40, 60}), gram = correlated_gram(60, 300, 7);
  for (const int bits : {2, 3, 4}) {
    for (const bool symmetric : {true, false}) {
      for (const GridRange range : {GridRange::kMinmax, GridRange::kWeighted}) {
        QuantizeColumns how = affine(bits);
        how.grid = {bits, symmetric, range};
        how.act_order = true;
        const ColumnCodes found = quantize_columns(weight, gram.unsqueeze(0), how);
        const at::Tensor nearest = dequantize(round_to_nearest(weight, 0, {bits, symmetric}));
        EXPECT_LT(output_error(weight, found.weight, gram), output_error(weight, nearest, gram));
      }
    }
  }
}

TEST(QuantizeColumns, WeighsRangesByTheInputs) {
  // One large weight on an input that is all but silent: the range leaves it out.
  at::Tensor weight = at::linspace(-1, 1, 16).repeat({2, 1});
  weight.select(1, 3).fill_(4);
  at::Tensor importance = at::ones({16}, at::kDouble);
  importance[3] = 1e-6;
  QuantizeColumns how = affine(3);
  how.grid.range = GridRange::kWeighted;
  const ColumnCodes silent = quantize_columns(weight, at::diag(importance).unsqueeze(0), how);
  importance[3] = 100;
  const ColumnCodes loud = quantize_columns(weight, at::diag(importance).unsqueeze(0), how);
  EXPECT_LT(silent.scale[0][0].item<float>(), 0.6);
  EXPECT_GT(loud.scale[0][0].item<float>(), 0.6);
}

TEST(QuantizeColumns, ZeroesDeadInputsAndWhatIsMasked) {
  at::manual_seed(8);
  const at::Tensor weight = at::randn({6, 12}) + 3;
  at::Tensor gram = correlated_gram(12, 50, 8);
  gram.select(0, 5).zero_();
  gram.select(1, 5).zero_();
  const at::Tensor keep = at::rand({6, 12}) > 0.5;
  for (const bool symmetric : {true, false}) {
    QuantizeColumns how = affine(4);
    how.grid.symmetric = symmetric;
    const ColumnCodes found = quantize_columns(weight, gram.unsqueeze(0), how, keep);
    EXPECT_EQ(found.dead, 1);
    EXPECT_TRUE((found.weight.select(1, 5) == 0).all().item<bool>());
    EXPECT_TRUE((found.weight.masked_select(keep.logical_not()) == 0).all().item<bool>());
    EXPECT_TRUE(at::equal(found.weight, decode(found, 12)));
  }
}

TEST(QuantizeColumns, TreatsTheGroupsOfAConvolutionOneByOne) {
  at::manual_seed(9);
  const at::Tensor weight = at::randn({8, 9});
  const at::Tensor grams = at::stack({correlated_gram(9, 40, 1), correlated_gram(9, 40, 2)});
  const ColumnCodes both = quantize_columns(weight, grams, affine(3));
  for (int64_t g = 0; g < 2; ++g) {
    const ColumnCodes one =
        quantize_columns(weight.narrow(0, 4 * g, 4), grams.narrow(0, g, 1), affine(3));
    EXPECT_TRUE(at::equal(both.weight.narrow(0, 4 * g, 4), one.weight));
  }
}

TEST(QuantizeColumns, GivesTheSameBytesForAnyNumberOfThreads) {
  at::manual_seed(10);
  const at::Tensor weight = at::randn({300, 200}),
                   gram = correlated_gram(200, 500, 10).unsqueeze(0);
  QuantizeColumns how = affine(3);
  how.grid.range = GridRange::kWeighted;
  how.granularity = Granularity::group(64);
  how.static_groups = false;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const ColumnCodes one = quantize_columns(weight, gram, how);
  at::set_num_threads(3);
  const ColumnCodes three = quantize_columns(weight, gram, how);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.codes, three.codes));
  EXPECT_TRUE(at::equal(one.scale, three.scale));
  EXPECT_EQ(one.error, three.error);
}

}  // namespace
}  // namespace compress::testing
