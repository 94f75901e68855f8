// Tests of passes/quantize/lsq.

#include "compress/train/session.h"
#include "passes/quantize/learned_step.h"
#include "tests/passes/quantize/calibrated.h"
#include "tests/passes/quantize/one_module.h"

#include <ATen/core/grad_mode.h>

#include <cmath>

namespace compress::testing {
namespace {

Model trainable_network() {
  Model model = residual_network();
  for (const NamedTensor& named : model.tensors()) {
    if (named.role == TensorRole::kParameter) at::Tensor(named.tensor).set_requires_grad(true);
  }
  return model;
}

// One step of plain gradient descent towards `target`.
void step(Model& model, TrainingSession& session, const at::Tensor& x, const at::Tensor& target,
          double rate) {
  session.before_forward();
  (model.forward({x})[0] - target).square().mean().backward();
  session.after_backward();
  {
    const at::NoGradGuard no_grad;
    for (const NamedTensor& named : model.tensors()) {
      at::Tensor tensor = named.tensor;
      if (!tensor.requires_grad() || !tensor.grad().defined()) continue;
      tensor.sub_(tensor.grad(), rate);
      tensor.mutable_grad().reset();
    }
  }
  session.after_step();
}

TEST(QuantizeLsq, StartsAtThePapersSteps) {
  Model model = trainable_network();
  const at::Tensor x = smooth_images();
  const at::Tensor weight = model.tensor("block.a.weight").detach().clone();
  TrainingSession session(model, "quantize.lsq{bits=3,activations=4}", passes(),
                          {.steps_per_epoch = 4, .total_steps = 4});
  EXPECT_NEAR(model.tensor("block.a.weight_step").item<double>(),
              2 * weight.abs().mean().item<double>() / std::sqrt(3), 1e-6);
  const Model exact = residual_network();
  step(model, session, x, exact.forward({x})[0], 0);
  // The images have negatives, and the first layer eight bits.
  EXPECT_NEAR(model.tensor("stem_input_step").item<double>(),
              2 * x.abs().mean().item<double>() / std::sqrt(127), 1e-6);
  EXPECT_EQ(model.find_tensor("fc_input_least"), nullptr) << "watched for one batch only";
  int64_t unsigned_codes = 0;
  for (const Node& node : model.graph().nodes()) {
    if (!node.op().starts_with("aten::_fake_quantize_learnable")) continue;
    const bool of_input = node.arguments()[1].value()->name().ends_with("_input_step");
    if (of_input) unsigned_codes += node.arguments()[3] == Argument(0);
  }
  EXPECT_EQ(unsigned_codes, 3) << "all but the images";
}

TEST(QuantizeLsq, TrainsStepsAndLeavesTheNetworkThatItTrained) {
  for (const char* granularity : {"tensor", "channel"}) {
    Model model = trainable_network();
    const at::Tensor x = smooth_images();
    const at::Tensor target = residual_network().forward({x})[0].detach();
    TrainingSession session(
        model,
        std::string("quantize.lsq{bits=3,activations=4,ends=0,granularity=") + granularity + "}",
        passes(), {.steps_per_epoch = 40, .total_steps = 40});
    step(model, session, x, target, 1e-3);
    const at::Tensor weight_step = model.tensor("block.a.weight_step").detach().clone();
    const at::Tensor input_step = model.tensor("block.b_input_step").detach().clone();
    const auto loss = [&] {
      const at::NoGradGuard no_grad;
      return (model.forward({x})[0] - target).square().mean().item<double>();
    };
    const double start = loss();
    for (int i = 0; i < 39; ++i) step(model, session, x, target, 1e-3);
    EXPECT_LT(loss(), 0.8 * start);
    EXPECT_FALSE(at::equal(model.tensor("block.a.weight_step"), weight_step));
    EXPECT_FALSE(at::equal(model.tensor("block.b_input_step"), input_step));

    const at::NoGradGuard no_grad;
    const at::Tensor before = model.forward({x})[0];
    session.finish();
    // Activations are divided by the step here, multiplied by its inverse there: a few round the
    // other way, by one step of sixteen.
    EXPECT_TRUE(at::allclose(model.forward({x})[0], before, 1e-2,
                             1e-2 * before.abs().max().item<double>()));
    EXPECT_EQ(count_of(model, "aten::fake_quantize_per_tensor_affine"), 4);
    for (const Weight& weight : weights(std::as_const(model))) {
      EXPECT_EQ(weight.encoding(), std::string("int3 ") + granularity);
    }
    EXPECT_EQ(model.find_tensor("block.a.weight_step"), nullptr);
    EXPECT_EQ(model.find_tensor("block.b_input_step_zero"), nullptr);
  }
}

TEST(QuantizeLsq, TellsAveragesWhereStepsOfActivationsBegin) {
  Model model = trainable_network();
  const at::Tensor x = smooth_images();
  std::map<std::string, at::Tensor> told;
  SessionOptions options{.steps_per_epoch = 4, .total_steps = 4};
  options.replaced = [&](std::string_view name, const SizeChange& change) {
    told[std::string(name)] = change(at::ones({1}));  // the placeholder
  };
  TrainingSession session(model, "quantize.lsq", passes(), options);
  step(model, session, x, at::zeros({1}), 1e-3);
  EXPECT_EQ(told.size(), 4u);
  EXPECT_TRUE(at::equal(told.at("fc_input_step"), model.tensor("fc_input_step")));
}

TEST(QuantizeLsq, TellsLayersOfOneModuleApart) {
  Model model = two_layers_of_one_module();
  for (const NamedTensor& named : model.tensors()) at::Tensor(named.tensor).set_requires_grad(true);
  TrainingSession session(model, "quantize.lsq", passes(), {});
  step(model, session, at::randn({4, 8}), at::zeros({1}), 1e-3);
  session.finish();
  EXPECT_EQ(count_of(model, "aten::fake_quantize_per_tensor_affine"), 2);
}

TEST(QuantizeLsq, GoesOnFromWhereItWas) {
  const at::Tensor x = smooth_images();
  const at::Tensor target = residual_network().forward({x})[0].detach();
  const SessionOptions options{.steps_per_epoch = 4, .total_steps = 4};
  Model whole = trainable_network(), halves = trainable_network();
  TrainingSession once(whole, "quantize.lsq", passes(), options);
  for (int i = 0; i < 4; ++i) step(whole, once, x, target, 1e-3);
  {
    TrainingSession first(halves, "quantize.lsq", passes(), options);
    for (int i = 0; i < 2; ++i) step(halves, first, x, target, 1e-3);
  }
  PassContext context;
  const std::map<std::string, at::Tensor> saved;
  TrainingSession second(halves, recipe_of("quantize.lsq").steps, context, options, &saved);
  for (int i = 2; i < 4; ++i) step(halves, second, x, target, 1e-3);
  EXPECT_TRUE(at::equal(whole.tensor("fc_input_step"), halves.tensor("fc_input_step")));
  EXPECT_TRUE(at::equal(whole.tensor("fc.weight"), halves.tensor("fc.weight")));
}

TEST(QuantizeLsq, LeavesActivationsThatItNeverSaw) {
  Model model = trainable_network();
  TrainingSession session(model, "quantize.lsq", passes(), {});
  session.finish();
  EXPECT_EQ(count_of(model, "aten::fake_quantize_per_tensor_affine"), 0);
  EXPECT_EQ(session.context().messages().size(), 4u);
  EXPECT_TRUE(model.graph().updates().empty());
  EXPECT_EQ(model.find_tensor("fc_input_step"), nullptr);
}

TEST(QuantizeLsq, RefusesGroupsAndOneBit) {
  Model model = trainable_network();
  const auto refusal = [&](const std::string& line) -> std::string {
    try {
      TrainingSession(model, line, passes(), {});
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_THAT(refusal("quantize.lsq{granularity=group:4}"), HasSubstr("groups cannot share"));
  EXPECT_THAT(refusal("quantize.lsq{activations=1}"), HasSubstr("one bit is too few"));
}

TEST(QuantizeLsq, RefusesWeightsThatAreCodesAlready) {
  Model model = residual_network();
  run_pass("quantize.weights", model);
  try {
    TrainingSession(model, "quantize.lsq", passes(), {});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("train before the weights are quantized"));
  }
}

}  // namespace
}  // namespace compress::testing
