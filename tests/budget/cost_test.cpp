// Costs agree with counts by hand.

#include "compress/budget/cost.h"

#include "compress/graph/text.h"
#include "compress/weight.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress::testing {
namespace {

double macs(const std::string& text) { return measure_cost(parse_filled(text)).macs.value(); }

TEST(Cost, CountsConvolutionsByOutputsAndFilters) {
  // 8 * 6 * 6 outputs, each a sum of 4 / 2 * 3 * 3
  EXPECT_EQ(macs("input x : f32[2,4,8,8]\nparameter w : f32[8,2,3,3]\n"
                 "y = aten::conv2d(x, w, none, [1, 1], [0, 0], [1, 1], 2)\nreturn y = y"),
            8 * 6 * 6 * 2 * 9);
}

TEST(Cost, CountsTransposedConvolutionsByInputs) {
  EXPECT_EQ(macs("input x : f32[2,4,5]\nparameter w : f32[4,6,3]\n"
                 "y = aten::conv_transpose1d(x, w)\nreturn y = y"),
            4 * 5 * 6 * 3);
}

// What a decomposed export has in the place of both.
TEST(Cost, CountsGeneralConvolutions) {
  EXPECT_EQ(macs("input x : f32[2,4,8,8]\nparameter w : f32[8,2,3,3]\n"
                 "y = aten::convolution(x, w, none, [1, 1], [0, 0], [1, 1], false, [0, 0], 2)\n"
                 "return y = y"),
            8 * 6 * 6 * 2 * 9);
  EXPECT_EQ(macs("input x : f32[2,4,5]\nparameter w : f32[4,6,3]\n"
                 "y = aten::convolution(x, w, none, [1], [0], [1], true, [0], 1)\nreturn y = y"),
            4 * 5 * 6 * 3);
}

TEST(Cost, CountsProductsOfActivationsToo) {
  EXPECT_EQ(macs("input q : f32[2,3,5,8]\n"
                 "k = aten::mul.Scalar(q, 2)\n"
                 "y = aten::scaled_dot_product_attention(q, k, q)\n"
                 "t = aten::transpose.int(q, 2, 3)\n"
                 "z = aten::matmul(y, t)\nreturn z = z"),
            3 * 5 * 5 * (8 + 8) + 3 * 5 * 5 * 8);
}

TEST(Cost, CountsLinearLayersForOneSample) {
  EXPECT_EQ(macs("input x : f32[batch,7,4]\nparameter w : f32[6,4]\n"
                 "y = aten::linear(x, w)\nreturn y = y"),
            7 * 6 * 4);
}

const char* const kTwoLayers = R"(
input x : f32[2,8]
parameter a.weight : f32[8,8]
parameter a.bias : f32[8] = [1, 0, 1, 1, 1, 1, 1, 1]
parameter b.weight : f32[4,8]
buffer state : f32[100]
a = aten::linear(x, a.weight, a.bias)
b = aten::linear(a, b.weight)
s = aten::sum(state)
c = aten::add.Tensor(b, s)
return y = c
)";

TEST(Cost, CountsParametersAndBytes) {
  Model model = parse_filled(kTwoLayers);
  const ModelCost found = measure_cost(model);
  EXPECT_EQ(found.parameters, 64 + 8 + 32);
  EXPECT_EQ(found.nonzeros, 64 + 7 + 32);
  EXPECT_EQ(found.weight_elements, 96);
  EXPECT_DOUBLE_EQ(found.bits_per_weight, 32);
  EXPECT_EQ(found.payload_bytes, 4 * (64 + 8 + 32 + 100));
  EXPECT_EQ(found.layers.size(), 2u);
}

TEST(Cost, CountsAMaskAsStoredAndItsZeros) {
  Model model = parse_filled(kTwoLayers);
  run_pass("prune.magnitude{sparsity=0.75}", model);
  const ModelCost found = measure_cost(model);
  EXPECT_DOUBLE_EQ(found.weight_sparsity(), 0.75);
  EXPECT_DOUBLE_EQ(found.sparsity(), (72.0 + 1) / 104);
  EXPECT_DOUBLE_EQ(found.bits_per_weight, 32 + 8);
  EXPECT_EQ(found.layers[1].nonzeros, 8);
}

TEST(Cost, CountsCodesAndScales) {
  Model model = parse_filled(kTwoLayers);
  run_pass("quantize.weights{bits=3,granularity=channel}", model);
  const ModelCost found = measure_cost(model);
  EXPECT_EQ(found.parameters, 104);
  EXPECT_DOUBLE_EQ(found.bits_per_weight, 3 + 32.0 / 8);
  EXPECT_EQ(found.layers[0].encoding, "int3 channel");
}

TEST(Cost, CountsTheZerosOfCodebooks) {
  for (const char* line :
       {"quantize.weights{format=nf4}", "quantize.weights{format=fp8}",
        "quantize.weights{format=mxfp4}", "quantize.weights{format=nvfp4}", "quantize.hqq",
        "quantize.weights{format=nvfp4},prune.magnitude{sparsity=0.5}"}) {
    Model model = parse_filled("fc.weight : f32[9,37]");  // half a byte is left at the end of a row
    run_pass(line, model);
    const ModelCost found = measure_cost(model);
    EXPECT_EQ(found.nonzeros, weights(model)[0].effective().ne(0).sum().item<int64_t>()) << line;
  }
}

TEST(Cost, CountsATiedWeightOnce) {
  const Model model = parse_filled(R"(
input ids : i64[2,3]
parameter wte.weight alias head.weight : f32[10,4]
x = aten::embedding(wte.weight, ids)
y = aten::linear(x, wte.weight)
return y = y
)");
  EXPECT_EQ(measure_cost(model).parameters, 40);
  EXPECT_EQ(measure_cost(model).layers.size(), 1u);
}

}  // namespace
}  // namespace compress::testing
