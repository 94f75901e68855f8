// Tests of passes/quantize/hqq.

#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

TEST(QuantizeHqq, EncodesGroupsWithFractionalZeroPoints) {
  Model model = parse_filled("fc.weight : f32[4,128]");
  const at::Tensor before = weights(model)[0].effective();
  const RunResult result = run_passes("quantize.hqq{bits=4}", model);
  const Weight weight = weights(model).at(0);
  EXPECT_EQ(weight.encoding(), "uint4 group:64");
  EXPECT_TRUE(weight.quantized()->zero_point.is_floating_point());
  EXPECT_DOUBLE_EQ(result.steps.at(0).measures.at("bits_per_weight"), 4.5);
  EXPECT_LT((weight.effective() - before).norm().item<double>(),
            .12 * before.norm().item<double>());
}

TEST(QuantizeHqq, TakesEveryWidth) {
  for (int bits = 2; bits <= 8; ++bits) {
    Model model = parse_filled("fc.weight : f32[3,50]");
    EXPECT_EQ(run_pass("quantize.hqq{group_size=16,bits=" + std::to_string(bits) + "}", model),
              Change::kSome);
    EXPECT_EQ(weights(model)[0].quantized()->bits, bits);
  }
}

TEST(QuantizeHqq, KeepsMaskedWeightsZero) {
  Model model = parse_filled("fc.weight : f32[4,128]");
  run_pass("prune.magnitude{sparsity=0.5},quantize.hqq", model);
  EXPECT_EQ(weights(model)[0].effective().eq(0).sum().item<int64_t>(), 256);
}

TEST(QuantizeHqq, LeavesQuantizedWeightsAloneAndSaysSo) {
  Model model = parse_filled("fc.weight : f32[4,16]");
  run_pass("quantize.weights", model);
  const RunResult result = run_passes("quantize.hqq", model);
  EXPECT_EQ(result.steps.at(0).counts.at("weights_left_alone"), 1);
  EXPECT_THAT(result.steps.at(0).messages.at(0), HasSubstr("quantized already (int4 channel)"));
}

TEST(QuantizeHqq, RefusesANormAboveOne) {
  Model model = parse_filled("fc.weight : f32[4,16]");
  EXPECT_THAT(refusal("quantize.hqq{norm=2}", model), HasSubstr("2 is outside [0.05, 1]"));
}

}  // namespace
}  // namespace compress::testing
