// Tests of passes/fold/batch_norm.

#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

using ::testing::Not;

std::string with_norm(const std::string& layer, const std::string& training = "false") {
  return R"(
input x : f32[2,4,6,6]
parameter conv.weight : f32[)" +
         std::string(layer.find("transpose") == layer.npos ? "8,4" : "4,4") + R"(,3,3]
parameter bn.weight : f32[8]
parameter bn.bias : f32[8]
buffer bn.running_mean : f32[8]
buffer bn.running_var : f32[8] = [1, 2, 3, 4, 0.5, 0.25, 1, 1]
)" + layer +
         "\nbn = aten::batch_norm(conv, bn.weight, bn.bias, bn.running_mean, bn.running_var, " +
         training + ", 0.1, 1e-5, true) @ bn\nrelu = aten::relu(bn)\nreturn y = relu\n";
}

const char* const kConv = "conv = aten::conv2d(x, conv.weight) @ conv";

TEST(FoldBatchNorm, LeavesOneConvolutionWithABias) {
  Model model = parse_filled(with_norm(kConv));
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 4, 6, 6});
  const at::Tensor before = model.forward({x})[0];
  EXPECT_EQ(run_pass("fold.batch_norm", model), Change::kSome);
  EXPECT_TRUE(at::allclose(model.forward({x})[0], before, 1e-5, 1e-5));
  const std::string text = print(model);
  EXPECT_THAT(text, HasSubstr("aten::conv2d(x, conv.weight, conv.bias)"));
  EXPECT_THAT(text, Not(HasSubstr("bn.")));
}

TEST(FoldBatchNorm, FoldsIntoAGroupedTransposedConvolution) {
  Model model = parse_filled(with_norm(
      "conv = aten::conv_transpose2d.input(x, conv.weight, none, [2, 2], [0, 0], [0, 0], 2) @ up"));
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 4, 6, 6});
  const at::Tensor before = model.forward({x})[0];
  EXPECT_EQ(run_pass("fold.batch_norm", model), Change::kSome);
  EXPECT_TRUE(at::allclose(model.forward({x})[0], before, 1e-5, 1e-5));
}

TEST(FoldBatchNorm, KeepsAMask) {
  Model model = parse_filled(with_norm(kConv));
  run_pass("prune.magnitude{sparsity=0.5}", model);
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 4, 6, 6});
  const at::Tensor before = model.forward({x})[0];
  EXPECT_EQ(run_pass("fold.batch_norm", model), Change::kSome);
  EXPECT_TRUE(at::allclose(model.forward({x})[0], before, 1e-5, 1e-5));
  EXPECT_NE(model.find_tensor("conv.weight_mask"), nullptr);
}

TEST(FoldBatchNorm, DropsTheCounterOfBatches) {
  Model model = parse_filled(R"(
input x : f32[2,4]
parameter fc.weight : f32[3,4]
buffer bn.running_mean : f32[3] = [1, 2, 3]
buffer bn.running_var : f32[3] = [1, 2, 3]
buffer bn.num_batches_tracked : i64[] = 7
linear = aten::linear(x, fc.weight) : f32[2,3]
bn = aten::batch_norm(linear, none, none, bn.running_mean, bn.running_var, false, 0.1, 1e-5, true)
add = aten::add.Tensor(bn.num_batches_tracked, 1)
return y = bn
update bn.num_batches_tracked = add
)");
  EXPECT_EQ(run_pass("fold.batch_norm", model), Change::kSome);
  EXPECT_TRUE(model.graph().updates().empty());
  EXPECT_THAT(print(model), Not(HasSubstr("bn.")));
}

void expect_left_alone(Model model, const std::string& reason) {
  const std::string before = print(model);
  const RunResult result = run_passes("fold.batch_norm", model);
  EXPECT_EQ(print(model), before);
  ASSERT_EQ(result.steps.at(0).messages.size(), 1u);
  EXPECT_THAT(result.steps.at(0).messages.at(0), HasSubstr(reason));
}

TEST(FoldBatchNorm, LeavesTrainingModeAloneAndSaysSo) {
  expect_left_alone(parse_filled(with_norm(kConv, "true")), "training mode");
}

TEST(FoldBatchNorm, LeavesAnOutputThatIsUsedTwiceAlone) {
  std::string text = with_norm(kConv);
  text += "return z = conv\n";
  expect_left_alone(parse_filled(text), "used elsewhere");
}

TEST(FoldBatchNorm, LeavesASharedWeightAlone) {
  std::string text = with_norm("other = aten::conv2d(x, conv.weight)\n" + std::string(kConv));
  text += "return z = other\n";
  expect_left_alone(parse_filled(text), "shared");
}

// Batch norms with factors of both signs: codes are mirrored, or stay as they are.
void expect_folded_codes(const std::string& step) {
  Model model = parse_filled(with_norm(kConv));
  ASSERT_LT(model.tensor("bn.weight").min().item<float>(), 0);
  ASSERT_GT(model.tensor("bn.weight").max().item<float>(), 0);
  run_pass(step, model);
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 4, 6, 6});
  const at::Tensor before = model.forward({x})[0];
  const std::string encoding = weights(model).at(0).encoding();
  EXPECT_EQ(run_pass("fold.batch_norm", model), Change::kSome);
  EXPECT_TRUE(at::allclose(model.forward({x})[0], before, 1e-5, 1e-5));
  EXPECT_EQ(weights(model).at(0).encoding(), encoding);
  EXPECT_THAT(print(model), Not(HasSubstr("batch_norm")));
}

TEST(FoldBatchNorm, ChangesTheScalesOfCodes) {
  expect_folded_codes("quantize.weights{bits=4,grid=affine}");
  expect_folded_codes("quantize.weights{bits=8}");
  expect_folded_codes("quantize.weights{bits=3,grid=affine,granularity=group:9}");
}

TEST(FoldBatchNorm, KeepsTheMaskOfCodes) {
  Model model = parse_filled(with_norm(kConv));
  run_pass("quantize.weights{bits=4,grid=affine}", model);
  run_pass("prune.magnitude{sparsity=0.5}", model);
  const int64_t kept = weights(model).at(0).mask().sum().item<int64_t>();
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 4, 6, 6});
  const at::Tensor before = model.forward({x})[0];
  EXPECT_EQ(run_pass("fold.batch_norm", model), Change::kSome);
  EXPECT_TRUE(at::allclose(model.forward({x})[0], before, 1e-5, 1e-5));
  EXPECT_EQ(weights(model).at(0).mask().sum().item<int64_t>(), kept);
}

TEST(FoldBatchNorm, LeavesCodesOfACodebookAlone) {
  Model model = parse_filled(with_norm(kConv));
  run_pass("quantize.weights{format=nf4}", model);
  expect_left_alone(std::move(model), "fold before quantizing");
}

TEST(FoldBatchNorm, LeavesAModelWithoutBatchNormsAlone) {
  Model model = parse_filled(
      "input x : f32[1,2]\nparameter w : f32[2,2]\ny = aten::linear(x, w)\nreturn y = y");
  EXPECT_EQ(run_pass("fold.batch_norm", model), Change::kNone);
}

TEST(FoldBatchNorm, RefusesASelectorWithoutAMatch) {
  Model model = parse_filled(with_norm(kConv));
  EXPECT_THAT(refusal("fold.batch_norm{where=convv.weight}", model), HasSubstr("conv.weight"));
}

}  // namespace
}  // namespace compress::testing
