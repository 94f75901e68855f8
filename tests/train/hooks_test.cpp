// The laws of masked and quantized training, at the two passes that prove the hook interface.

#include "compress/encoding.h"
#include "compress/train/session.h"
#include "compress/weight.h"
#include "passes/quantize/round_to_nearest.h"
#include "tests/support/pass_fixture.h"
#include "tests/train/training_fixture.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

using testing::conv_network;
using testing::environment_of;
using testing::linear_network;
using testing::toy_data;
using testing::train_model;
using testing::train_options;

int64_t zeros(const at::Tensor& tensor) {
  return tensor.numel() - tensor.count_nonzero().item<int64_t>();
}

TEST(KeepMasks, HoldsMaskedWeightsAtZeroAgainstMomentumAndDecay) {
  Model model = conv_network();
  testing::run_pass("prune.magnitude{sparsity=0.5}", model);
  std::map<std::string, at::Tensor> masks;
  for (const Weight& weight : weights(model)) masks[weight.name()] = weight.mask().clone();
  const TrainOptions options = train_options(R"({"epochs": 2, "batch_size": 32,
    "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}}})");
  train_model(model, options, environment_of(toy_data({3, 8, 8}, 96)));
  for (const auto& [name, mask] : masks) {
    EXPECT_EQ(zeros(model.tensor(name).masked_select(mask.logical_not())),
              mask.numel() - mask.count_nonzero().item<int64_t>())
        << name;
  }
}

TEST(Session, ZeroesTheMomentumOfMaskedWeights) {
  Model model = linear_network();
  at::Tensor weight = model.tensor("fc.weight");
  weight.set_requires_grad(true);
  at::Tensor momentum = at::ones_like(weight.detach());
  TrainingSession session(
      model, "prune.gradual{sparsity=0.5,end=1,frequency=1}", testing::passes(),
      {.steps_per_epoch = 2, .total_steps = 4, .moments = [&](std::string_view name) {
         return name == "fc.weight" ? std::vector<at::Tensor>{momentum} : std::vector<at::Tensor>();
       }});
  for (int step = 0; step < 4; ++step) {
    session.before_forward();
    model.forward({at::ones({2, 8})})[0].sum().backward();
    session.after_backward();
    const at::NoGradGuard no_grad;
    momentum.add_(1);
    model.tensor("fc.weight").add_(0.25);  // whatever an optimizer does
    session.after_step();
  }
  EXPECT_EQ(zeros(weight.detach()), 16);
  EXPECT_TRUE(momentum.eq(0).equal(weight.detach().eq(0)));
  session.finish();
  EXPECT_EQ(session.context().counts().at("weights_zeroed"), 16);
}

TEST(Session, RefusesAPassThatIsNoHook) {
  Model model = linear_network();
  EXPECT_THAT(
      testing::error_of([&] { TrainingSession(model, "prune.magnitude", testing::passes(), {}); }),
      ::testing::HasSubstr("does not work during training"));
}

TEST(PruneGradual, RefusesToBeAStepOfItsOwn) {
  Model model = linear_network();
  EXPECT_THAT(testing::refusal("prune.gradual", model), ::testing::HasSubstr("during"));
}

}  // namespace
}  // namespace compress
