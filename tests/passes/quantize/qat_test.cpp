// What the network sees while it learns is what is packed in the end.

#include "compress/encoding.h"
#include "compress/train/session.h"
#include "compress/weight.h"
#include "passes/quantize/round_to_nearest.h"
#include "tests/passes/quantize/one_module.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

Model network() {
  return testing::parse_filled(R"(
input x : f32[batch,4,6,6]
parameter conv.weight : f32[8,4,3,3]
parameter bn.weight : f32[8]
parameter bn.bias : f32[8]
buffer bn.running_mean : f32[8] = [0, 0, 0, 0, 0, 0, 0, 0]
buffer bn.running_var : f32[8] = [1, 1, 1, 1, 1, 1, 1, 1]
parameter fc.weight : f32[16,8]
conv2d = aten::conv2d(x, conv.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ conv
batch_norm = aten::batch_norm(conv2d, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 0.00001, true) : f32[batch,8,6,6] @ bn
relu = aten::relu(batch_norm) : f32[batch,8,6,6]
mean = aten::mean.dim(relu, [2, 3]) : f32[batch,8]
linear = aten::linear(mean, fc.weight, none) : f32[batch,16] @ fc
return output = linear
)");
}

void require_gradients(Model& model) {
  for (const NamedTensor& named : model.tensors()) {
    if (named.role == TensorRole::kParameter) at::Tensor(named.tensor).set_requires_grad(true);
  }
}

// One step of plain gradient descent on whatever the session shows.
void step(Model& model, TrainingSession& session, const at::Tensor& input) {
  session.before_forward();
  model.forward({input})[0].square().mean().backward();
  session.after_backward();
  {
    const at::NoGradGuard no_grad;
    for (const NamedTensor& named : model.tensors()) {
      at::Tensor tensor = named.tensor;
      if (!tensor.requires_grad() || !tensor.grad().defined()) continue;
      tensor.sub_(tensor.grad(), 0.1);
      tensor.mutable_grad().reset();
    }
  }
  session.after_step();
}

TEST(QuantizeQat, ShowsTheNetworkRoundedWeightsAndPassesGradientsStraightThrough) {
  Model model = network(), plain = network();
  require_gradients(model);
  const at::Tensor weight = model.tensor("fc.weight").detach().clone();
  TrainingSession session(model, "quantize.qat{bits=2,where=fc.*}", testing::passes(),
                          {.steps_per_epoch = 4, .total_steps = 4});
  at::manual_seed(1);
  const at::Tensor input = at::randn({8, 4, 6, 6});
  session.before_forward();
  const at::Tensor seen = model.forward({input})[0];
  const at::Tensor rounded = dequantize(round_to_nearest(weight, 0, {.bits = 2}));
  plain.set_tensor("fc.weight", rounded);
  EXPECT_TRUE(at::allclose(seen, plain.forward({input})[0], 1e-5, 1e-6));

  // The gradient of sum(mean @ W^T) is the same for every row, whatever rounding did.
  seen.sum().backward();
  const at::Tensor gradient = model.tensor("fc.weight").grad();
  EXPECT_GT(gradient.abs().sum().item<double>(), 0);
  EXPECT_TRUE(at::allclose(gradient[0], gradient[15]));
}

TEST(QuantizeQat, PacksTheWeightsThatQuantizeWeightsPacks) {
  Model model = network();
  require_gradients(model);
  TrainingSession session(model, "quantize.qat{bits=4,grid=affine,granularity=group:4}",
                          testing::passes(), {.steps_per_epoch = 3, .total_steps = 6});
  at::manual_seed(2);
  for (int i = 0; i < 6; ++i) step(model, session, at::randn({8, 4, 6, 6}));
  Model trained = network();
  for (const NamedTensor& named : model.tensors()) {
    if (trained.find_tensor(named.name)) {
      trained.set_tensor(named.name, named.tensor.detach().clone());
    }
  }
  session.finish();
  testing::run_pass("quantize.weights{bits=4,grid=affine,granularity=group:4}", trained);
  for (const Weight& weight : weights(model)) {
    ASSERT_TRUE(weight.is_quantized()) << weight.name();
    EXPECT_EQ(weight.encoding(), "uint4 group:4");
  }
  const std::vector<Weight> mine = weights(std::as_const(model)),
                            others = weights(std::as_const(trained));
  ASSERT_EQ(mine.size(), others.size());
  for (size_t i = 0; i < mine.size(); ++i) {
    EXPECT_TRUE(mine[i].effective().equal(others[i].effective())) << mine[i].name();
  }
  for (const NamedTensor& named : model.tensors()) {
    EXPECT_EQ(named.name.find("rounding_error"), std::string::npos) << named.name;
  }
}

TEST(QuantizeQat, ExportsTheNetworkThatItTrained) {
  Model model = network();
  require_gradients(model);
  TrainingSession session(model, "quantize.qat{bits=3,activations=8}", testing::passes(),
                          {.steps_per_epoch = 4, .total_steps = 8});
  at::manual_seed(3);
  const at::Tensor input = at::randn({16, 4, 6, 6});
  for (int i = 0; i < 8; ++i) step(model, session, input);
  session.before_forward();  // rounding of the last weights; after_step lets go of the ranges
  const at::NoGradGuard no_grad;
  const at::Tensor before = model.forward({input})[0];
  session.finish();
  const at::Tensor after = model.forward({input})[0];
  // The moving range takes this batch in once more before it is fixed.
  EXPECT_TRUE(at::allclose(before, after, 1e-3, 1e-3)) << (before - after).abs().max();
  EXPECT_EQ(session.context().counts().at("activations_quantized"), 2);
  EXPECT_EQ(model.graph().find("fc_input_scale"), nullptr) << "the observers are gone";
}

TEST(QuantizeQat, ShowsAnEvaluationWhatWouldBePacked) {
  Model model = network();
  require_gradients(model);
  TrainingSession session(model, "quantize.qat{bits=3}", testing::passes(),
                          {.steps_per_epoch = 4, .total_steps = 8});
  at::manual_seed(3);
  const at::Tensor input = at::randn({16, 4, 6, 6});
  for (int i = 0; i < 3; ++i) step(model, session, input);
  const at::NoGradGuard no_grad;
  model.tensor("fc.weight").mul_(-0.7);  // as if an average took its place
  session.before_evaluation();
  const at::Tensor before = model.forward({input})[0];
  session.finish();
  EXPECT_TRUE(at::allclose(model.forward({input})[0], before, 1e-5, 1e-6));
}

TEST(QuantizeQat, LeavesInputsAloneThatItNeverSaw) {
  Model model = network();
  require_gradients(model);
  TrainingSession session(model, "quantize.qat{activations=8,begin=5}", testing::passes(),
                          {.steps_per_epoch = 2, .total_steps = 4});
  for (int i = 0; i < 4; ++i) step(model, session, at::randn({16, 4, 6, 6}));
  session.finish();
  EXPECT_EQ(session.context().counts().at("activations_quantized"), 0);
  EXPECT_THAT(session.context().messages().at(0), ::testing::HasSubstr("2 inputs of layers stay"));
  for (const Node& node : model.graph().nodes()) {
    EXPECT_THAT(node.op(), ::testing::Not(::testing::HasSubstr("fake_quant")));
  }
}

TEST(QuantizeQat, ObservesForAWhileWhereverItBegins) {
  Model model = network();
  require_gradients(model);
  TrainingSession session(model, "quantize.qat{activations=8,begin=3}", testing::passes(),
                          {.steps_per_epoch = 2, .total_steps = 8});
  for (int i = 0; i < 8; ++i) step(model, session, at::randn({16, 4, 6, 6}));
  EXPECT_GT(model.tensor("conv_input_max").item<float>(), 1);
  EXPECT_LT(model.tensor("conv_input_min").item<float>(), -1);
}

TEST(QuantizeQat, TellsLayersOfOneModuleApart) {
  Model model = testing::two_layers_of_one_module();
  require_gradients(model);
  TrainingSession session(model, "quantize.qat{activations=8}", testing::passes(), {});
  step(model, session, at::randn({4, 8}));
  session.finish();
  EXPECT_EQ(session.context().counts().at("activations_quantized"), 2);
}

TEST(QuantizeQat, KeepsRangesBetweenSteps) {
  Model model = network();
  require_gradients(model);
  TrainingSession session(model, "quantize.qat{activations=8,freeze_ranges=1}", testing::passes(),
                          {.steps_per_epoch = 2, .total_steps = 6});
  at::manual_seed(4);
  const auto range = [&] { return model.tensor("conv_input_max").item<float>(); };
  step(model, session, at::randn({8, 4, 6, 6}));
  const float first = range();
  model.forward({at::randn({8, 4, 6, 6}).mul_(100)});  // validation on something else
  EXPECT_EQ(range(), first);
  step(model, session, at::randn({8, 4, 6, 6}).mul_(100));
  const float second = range();
  EXPECT_GT(second, first);
  step(model, session, at::randn({8, 4, 6, 6}).mul_(1000));  // frozen since epoch 1
  EXPECT_EQ(range(), second);
}

TEST(QuantizeQat, FreezesBatchNorm) {
  Model model = network();
  model.train();
  require_gradients(model);
  TrainingSession session(model, "quantize.qat{freeze_batch_norm=1}", testing::passes(),
                          {.steps_per_epoch = 2, .total_steps = 4});
  at::manual_seed(5);
  const auto mean = [&] { return model.tensor("bn.running_mean").clone(); };
  const at::Tensor start = mean();
  for (int i = 0; i < 2; ++i) step(model, session, at::randn({8, 4, 6, 6}));
  const at::Tensor frozen = mean();
  EXPECT_FALSE(frozen.equal(start));
  for (int i = 0; i < 2; ++i) step(model, session, at::randn({8, 4, 6, 6}));
  EXPECT_TRUE(mean().equal(frozen));
}

TEST(QuantizeQat, RefusesWeightsThatAreCodesAlready) {
  Model model = network();
  testing::run_pass("quantize.weights", model);
  try {
    TrainingSession(model, "quantize.qat", testing::passes(), {});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("train before the weights are quantized"));
  }
}

}  // namespace
}  // namespace compress
