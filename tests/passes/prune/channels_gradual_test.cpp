// Tests of passes/prune/channels_gradual.

#include "tests/passes/prune/small_convnet.h"

#include <fmt/format.h>

#include <cmath>

namespace compress::testing {
namespace {

TEST(PruneChannelsGradual, ShrinksTheGraphUntilTheBudgetIsMet) {
  for (const char* criterion : {"l2", "taylor", "fpgm", "random"}) {
    SCOPED_TRACE(criterion);
    Model model = small_convnet();
    const RunResult result = train_with(
        model,
        std::string("prune.channels_gradual,budget={macs=0.5},rounds=3,criterion=") + criterion);
    EXPECT_LE(result.steps.at(0).measures.at("macs_kept"), 0.5);
    EXPECT_GT(result.steps.at(0).measures.at("macs_kept"), 0.35);
    EXPECT_LT(model.tensor("a.weight").size(0), 16);
    EXPECT_EQ(model.tensor("a.weight").size(0), model.tensor("n.running_mean").size(0));
    EXPECT_TRUE(std::isfinite(model.forward({at::randn({2, 3, 8, 8})})[0].sum().item<double>()));
  }
}

TEST(PruneChannelsGradual, CutsWhatTheOptimizerKeeps) {
  for (const char* optimizer : {"{sgd={lr=0.01,momentum=0.9}}", "{adamw={lr=0.001}}"}) {
    SCOPED_TRACE(optimizer);
    Model model = small_convnet();
    const RunResult result = train_with(model, "prune.channels_gradual,budget={parameters=0.5}",
                                        std::string("ema=0.9,optimizer=") + optimizer);
    EXPECT_LE(result.steps.at(0).measures.at("parameters_kept"), 0.5);
  }
}

TEST(PruneChannelsGradual, CutsWhatOtherPassesKeep) {
  for (const char* criterion : {"magnitude", "taylor"}) {
    for (const bool first : {false, true}) {
      SCOPED_TRACE(first);
      const std::string channels = "{pass=prune.channels_gradual,budget={macs=0.5},rounds=3}";
      const std::string single =
          std::string("{pass=prune.gradual,sparsity=0.6,frequency=1,criterion=") + criterion + "}";
      Model model = small_convnet();
      const RunResult result =
          train_with_all(model, first ? channels + "," + single : single + "," + channels);
      EXPECT_LE(result.steps.at(0).measures.at("macs_kept"), 0.5);
      for (const Weight& weight : weights(std::as_const(model))) {
        ASSERT_TRUE(weight.mask().defined()) << weight.name();
        EXPECT_EQ(weight.mask().sizes(), weight.stored()->tensor.sizes());
        EXPECT_NEAR(weight.mask().to(at::kDouble).mean().item<double>(), 0.4, 0.15)
            << weight.name();
      }
    }
  }
}

TEST(PruneChannelsGradual, JoinsRoundsOfTheSameStep) {
  for (const char* when : {"rounds=6,begin=1,end=1", "rounds=50", "rounds=4,end=99"}) {
    SCOPED_TRACE(when);
    Model model = small_convnet();
    const RunResult result = train_with(
        model, fmt::format("prune.channels_gradual,budget={{macs=0.5}},criterion=taylor,{}", when));
    EXPECT_LE(result.steps.at(0).measures.at("macs_kept"), 0.5);
  }
}

TEST(PruneChannelsGradual, CutsStepsThatAreLearned) {
  Model model = small_convnet();
  const RunResult result = train_with_all(
      model, "{pass=quantize.lsq},{pass=prune.channels_gradual,budget={macs=0.5},rounds=3}");
  EXPECT_LE(result.steps.at(0).measures.at("macs_kept"), 0.5);
  for (const Weight& weight : weights(std::as_const(model))) {
    EXPECT_TRUE(weight.is_quantized()) << weight.name();
  }
}

TEST(PruneChannelsGradual, RefusesWhatItCannotDo) {
  Model model = small_convnet();
  EXPECT_THAT(refusal("train{during=[{pass=prune.channels_gradual,criterion=apoz}]}", model),
              HasSubstr("looks at calibration data"));
  EXPECT_THAT(refusal("train{during=[{pass=prune.channels_gradual,begin=2,end=1}]}", model),
              HasSubstr("lies before `begin`"));
  EXPECT_THAT(refusal("train{during=[{pass=prune.channels_gradual,budget={latency_ms=1}}]}", model),
              HasSubstr("not measured while training"));
}

}  // namespace
}  // namespace compress::testing
