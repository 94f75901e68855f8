// The laws of masked and quantized training, at the two passes that prove the hook interface.

#include "compress/encoding.h"
#include "compress/train/session.h"
#include "compress/train/training_pass.h"
#include "compress/weight.h"
#include "passes/quantize/round_to_nearest.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"
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
  EXPECT_THAT(testing::message_of(
                  [&] { TrainingSession(model, "prune.magnitude", testing::passes(), {}); }),
              ::testing::HasSubstr("does not work during training"));
}

TEST(PruneGradual, RefusesToBeAStepOfItsOwn) {
  Model model = linear_network();
  EXPECT_THAT(testing::refusal("prune.gradual", model), ::testing::HasSubstr("during"));
}

// A method that uses all that the interface gives: it owns the update, adds to the loss, and
// removes a unit of the hidden layer in mid-training.
struct OddOptions {
  bool own_update = false;
  int64_t remove_at = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("own_update", own_update, "Whether it steps instead of the optimizer.");
    field("remove_at", remove_at, "After which step a unit goes; 0: never.");
  }
};

class OddHook final : public TrainingHook {
 public:
  explicit OddHook(OddOptions options) : options_(options) {}
  at::Tensor loss_term(Training& training) override {
    return training.model.tensor("a.weight").square().sum().mul(0.01);
  }
  bool step(Training& training) override {
    if (!options_.own_update) return false;
    const at::NoGradGuard no_grad;
    for (const NamedTensor& named : training.model.tensors()) {
      at::Tensor(named.tensor).sub_(named.tensor.grad().sign(), 0.001);
    }
    return true;
  }
  void after_step(Training& training) override {
    if (training.clock.step != options_.remove_at) return;
    drop(training, "a.weight", 0);
    drop(training, "b.weight", 1);
  }
  void finish(Training&) override {}

 private:
  static void drop(Training& training, const std::string& name, int64_t dim) {
    const auto smaller = [dim](const at::Tensor& tensor) {
      return tensor.detach().slice(dim, 0, tensor.size(dim) - 1).clone();
    };
    training.model.set_tensor(name, smaller(training.model.tensor(name)));
    training.replaced(name, smaller);
  }
  OddOptions options_;
};

class Odd final : public TrainingPassWith<OddOptions> {
 public:
  static constexpr PassInfo kInfo{"test.odd", "Does what no method does", Needs::kTraining};
  std::unique_ptr<TrainingHook> hook(const Options& options) const override {
    return std::make_unique<OddHook>(options);
  }
};

Model two_layers() {
  return testing::parse_filled(R"(
input x : f32[batch,8]
parameter a.weight : f32[6,8]
parameter b.weight : f32[4,6]
a = aten::linear(x, a.weight, none) : f32[batch,6] @ a
relu = aten::relu(a) : f32[batch,6]
b = aten::linear(relu, b.weight, none) : f32[batch,4] @ b
return output = b
)");
}

TrainResult train_oddly(Model& model, const std::string& options, const std::string& train_json) {
  PassRegistry registry;
  registry.add(make_pass<Odd>());
  PassContext context(1);
  const Recipe recipe = load_recipe("test.odd{" + options + "}", registry);
  return train(model, train_options(train_json), recipe.steps, environment_of(toy_data({8}, 64)),
               context);
}

TEST(Hooks, MayOwnTheUpdate) {
  Model model = two_layers();
  const Model before = two_layers();
  train_oddly(model, "own_update=true", R"({"batch_size": 32, "optimizer": {"sgd": {"lr": 100}}})");
  const at::Tensor moved = (model.tensor("a.weight") - before.tensor("a.weight")).abs();
  EXPECT_LE(moved.max().item<double>(), 0.0021);  // two steps of 0.001
  EXPECT_GT(moved.max().item<double>(), 0.0009);
}

TEST(Hooks, MayRemoveAUnitWhileTheOptimizerKeepsItsState) {
  for (const char* optimizer : {R"("sgd")", R"({"adamw": {"lr": 0.01}})"}) {
    Model model = two_layers();
    const TrainResult result =
        train_oddly(model, "remove_at=3",
                    std::string(R"({"epochs": 4, "batch_size": 32, "ema": 0.5, "optimizer": )") +
                        optimizer + "}");
    EXPECT_EQ(result.steps, 8);
    EXPECT_EQ(model.tensor("a.weight").sizes(), (std::vector<int64_t>{5, 8}));
    EXPECT_EQ(model.tensor("b.weight").sizes(), (std::vector<int64_t>{4, 5}));
  }
}

}  // namespace
}  // namespace compress
