// Tests of passes/prune/channels_gradual.

#include "tests/passes/prune/small_convnet.h"

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
