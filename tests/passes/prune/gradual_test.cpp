// The cubic schedule, exact counts along the way, and patterns that tighten.

#include "compress/data/tensors.h"
#include "compress/train/session.h"
#include "compress/weight.h"
#include "passes/prune/gradual_schedule.h"
#include "tests/passes/prune/small_convnet.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <gmock/gmock.h>

#include <cmath>

namespace compress {
namespace {

TEST(GradualSparsity, FollowsThePublishedCubic) {
  // Zhu & Gupta, eq. 1, at 0, 10, 25, 50, 75 and 100 % of the time, worked out by hand.
  const std::vector<std::pair<double, double>> from_zero = {
      {0, 0}, {0.1, 0.2439}, {0.25, 0.5203125}, {0.5, 0.7875}, {0.75, 0.8859375}, {1, 0.9}};
  for (const auto& [progress, sparsity] : from_zero) {
    EXPECT_NEAR(gradual_sparsity(0, 0.9, progress), sparsity, 1e-12) << progress;
  }
  EXPECT_NEAR(gradual_sparsity(0.05, 0.9, 0.1), 0.28035, 1e-12);
  EXPECT_NEAR(gradual_sparsity(0.05, 0.9, 0.25), 0.54140625, 1e-12);
  EXPECT_NEAR(gradual_sparsity(0.05, 0.9, -1), 0.05, 1e-15);
  EXPECT_EQ(gradual_sparsity(0.05, 0.9, 2), 0.9);
}

Model network() {
  return testing::parse_filled(R"(
input x : f32[batch,16]
parameter a.weight : f32[32,16]
parameter b.weight : f32[4,32]
a = aten::linear(x, a.weight, none) : f32[batch,32] @ a
relu = aten::relu(a) : f32[batch,32]
b = aten::linear(relu, b.weight, none) : f32[batch,4] @ b
return output = b
)");
}

int64_t zeros(const at::Tensor& tensor) {
  return tensor.numel() - tensor.count_nonzero().item<int64_t>();
}

// Runs a session in which "the optimizer" adds noise everywhere, and calls `look` after each step.
void walk(Model& model, const std::string& pass, int64_t steps,
          const std::function<void(int64_t)>& look) {
  at::manual_seed(5);
  TrainingSession session(model, pass, testing::passes(),
                          {.steps_per_epoch = 10, .total_steps = steps});
  for (const NamedTensor& named : model.tensors()) at::Tensor(named.tensor).set_requires_grad(true);
  for (int64_t step = 1; step <= steps; ++step) {
    session.before_forward();
    model.forward({at::randn({8, 16})})[0].square().mean().backward();
    session.after_backward();
    {
      const at::NoGradGuard no_grad;
      for (const NamedTensor& named : model.tensors()) {
        at::Tensor tensor = named.tensor;
        tensor.add_(at::randn_like(tensor), 0.05);
        tensor.mutable_grad().reset();
      }
    }
    session.after_step();
    look(step);
  }
  session.finish();
}

TEST(PruneGradual, HasTheScheduledNumberOfZerosAfterEveryUpdate) {
  Model model = network();
  walk(model, "prune.gradual{sparsity=0.9,end=2,frequency=5}", 30, [&](int64_t step) {
    if (step % 5 != 0 || step > 20) return;
    const double sparsity = gradual_sparsity(0, 0.9, static_cast<double>(step) / 20);
    for (const char* name : {"a.weight", "b.weight"}) {
      const at::Tensor weight = model.tensor(name).detach();
      const auto elements = static_cast<double>(weight.numel());
      EXPECT_EQ(weight.numel() - zeros(weight), std::nearbyint(elements * (1 - sparsity)))
          << name << " at step " << step;
    }
  });
  for (const Weight& weight : weights(model)) {
    EXPECT_TRUE(weight.mask().defined());
    EXPECT_EQ(zeros(weight.mask()), zeros(weight.stored()->tensor)) << weight.name();
  }
}

TEST(PruneGradual, NeverLetsAMaskedWeightComeBack) {
  Model model = network();
  at::Tensor gone = at::zeros_like(model.tensor("a.weight"), at::kBool);
  walk(model, "prune.gradual{sparsity=0.8,end=2,frequency=3,scope=model}", 25, [&](int64_t) {
    const at::Tensor zero = model.tensor("a.weight").detach().eq(0);
    EXPECT_TRUE(zero.logical_or(gone.logical_not()).all().item<bool>());
    gone = zero;
  });
  const int64_t all = zeros(model.tensor("a.weight")) + zeros(model.tensor("b.weight"));
  EXPECT_EQ(all, 32 * 16 + 4 * 32 - 128);  // one threshold: 20 % of 640 stay
}

TEST(PruneGradual, TightensPatternsToNOfM) {
  Model model = network();
  walk(model, "prune.gradual{n=2,m=4,end=2,frequency=1}", 25, [](int64_t) {});
  for (const char* name : {"a.weight", "b.weight"}) {
    const at::Tensor kept = model.tensor(name).detach().ne(0).view({-1, 4}).sum(1);
    EXPECT_TRUE(kept.eq(2).all().item<bool>()) << name;
  }
}

TEST(PruneGradual, TaylorKeepsWhatTheLossDependsOn) {
  // The loss looks at the first input only: its column of weights is all that matters.
  Model model = testing::parse_filled(R"(
input x : f32[batch,4]
parameter a.weight : f32[2,4] = [[0.1, 5, 5, 5], [0.1, 5, 5, 5]]
a = aten::linear(x, a.weight, none) : f32[batch,2] @ a
return output = a
)");
  at::Tensor(model.tensor("a.weight")).set_requires_grad(true);
  TrainingSession session(model, "prune.gradual{criterion=taylor,sparsity=0.75,end=1,frequency=1}",
                          testing::passes(), {.steps_per_epoch = 1, .total_steps = 1});
  session.before_forward();
  model.forward({at::eye(4).slice(0, 0, 1)})[0].sum().backward();
  session.after_backward();
  session.after_step();
  session.finish();
  Model& finished = model;
  EXPECT_EQ(testing::effective_weight(finished, "a.weight"), "[[0.1, 0, 0, 0], [0.1, 0, 0, 0]]");
}

TEST(PruneGradual, RefusesToBeginBehindTheEnd) {
  Model model = network();
  EXPECT_THAT(
      testing::message_of([&] { walk(model, "prune.gradual{begin=3}", 20, [](int64_t) {}); }),
      ::testing::HasSubstr("begins at epoch 3, and the training ends at epoch 2"));
}

TEST(PruneGradual, LeavesItsZerosToAQuantizerAndToAverages) {
  for (const char* quantizer : {"{pass=quantize.qat}", "{pass=quantize.lsq}"}) {
    SCOPED_TRACE(quantizer);
    Model model = testing::small_convnet();
    const auto result = testing::train_with_all(
        model, std::string("{pass=prune.gradual,sparsity=0.8,frequency=1},") + quantizer,
        "ema=0.9");
    EXPECT_NEAR(result.steps.at(0).measures.at("sparsity"), 0.8, 0.01);
    EXPECT_GT(result.steps.at(0).counts.at("weights_zeroed"), 0);
    for (const Weight& weight : weights(std::as_const(model))) {
      EXPECT_TRUE(weight.is_quantized());
      EXPECT_GE(zeros(weight.effective()), weight.elements() * 79 / 100) << weight.name();
    }
  }
}

TEST(PruneGradual, RefusesOptionsThatContradictOneAnother) {
  const auto refusal = [](const std::string& options) {
    try {
      testing::recipe_of("train{during=[{pass=prune.gradual," + options + "}]}");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  EXPECT_THAT(refusal("n=2"), ::testing::HasSubstr("needs both"));
  EXPECT_THAT(refusal("n=5,m=4"), ::testing::HasSubstr("5 of 4"));
  EXPECT_THAT(refusal("begin=3,end=2"), ::testing::HasSubstr("before `begin`"));
  EXPECT_THAT(refusal("initial=0.9,sparsity=0.5"), ::testing::HasSubstr("more than the final"));
}

}  // namespace
}  // namespace compress
