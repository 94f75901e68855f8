// Tests of passes/prune/channels.

#include "tests/support/channels.h"

#include "compress/data/tensors.h"
#include "compress/engine/plan.h"
#include "compress/graph/kept_channels.h"
#include "compress/train/environment.h"
#include "compress/zoo/zoo.h"
#include "passes/structured/channel_options.h"
#include "tests/passes/second_order/two_layers.h"

#include <ATen/Parallel.h>

namespace compress::testing {
namespace {

Model resnet() {
  Model model = zoo::build("resnet20-cifar10");
  randomise_constants(model, 1);
  return model;
}

double measured(const RunResult& result, const char* name) {
  return result.steps.at(0).measures.at(name);
}

TEST(PruneChannels, MeetsEachBudget) {
  Model macs = resnet();
  EXPECT_NEAR(measured(run_passes("prune.channels{budget={macs=0.5}}", macs), "macs_kept"), 0.5,
              0.02);
  Model parameters = resnet();
  EXPECT_NEAR(
      measured(run_passes("prune.channels{budget={parameters=0.3},scope=layer}", parameters),
               "parameters_kept"),
      0.3, 0.02);
  Model bytes = resnet();
  const double size = measured(run_passes("prune.channels{budget={bytes=500KB}}", bytes), "bytes");
  EXPECT_LE(size, 500e3);
  EXPECT_GE(size, 480e3);
}

TEST(PruneChannels, KeepsToTheLimitOfALayerInAllRoundsTogether) {
  for (const char* rounds : {"1", "4"}) {
    Model model = resnet();
    const std::string wanted = "criterion=l1,where=layer*.conv1*,rounds=" + std::string(rounds);
    EXPECT_THAT(refusal("prune.channels{budget={macs=0.3},most=0.5," + wanted + "}", model),
                HasSubstr("cannot be reached"));
    run_passes("prune.channels{budget={macs=0.55},most=0.5," + wanted + "}", model);
    for (const Weight& weight : weights(std::as_const(model))) {
      if (!matches_glob("layer3.*.conv1.weight", weight.name())) continue;
      EXPECT_GE(weight.sizes()[0], 32) << weight.name() << " in " << rounds << " rounds";
    }
  }
}

TEST(PruneChannels, RefusesWhatCannotBeDone) {
  Model model = resnet();
  EXPECT_THAT(refusal("prune.channels{per_cost=true,normalization=gaussian}", model),
              HasSubstr("scores around 0"));
  // The block's other layer is not selected.
  EXPECT_THAT(refusal("prune.channels{where=layer1.0.conv2.weight}", model),
              HasSubstr("layer1.0.conv2.weight go with those of"));
  Model plain = parse_filled(kTwoLayers);
  EXPECT_THAT(refusal("prune.channels{criterion=batch_norm}", plain),
              HasSubstr("`batch_norm` says nothing about the selected channels"));
}

// Clocks are noisy: what is certain is what no machine can reach, and what any can.
TEST(PruneChannels, MeasuresALatency) {
  Model model = resnet();
  model.eval();
  EXPECT_THAT(refusal("prune.channels{budget={latency_ms=1e-6}}", model),
              HasSubstr("1e-06 milliseconds cannot be reached"));
  EXPECT_EQ(run_pass("prune.channels{budget={latency_ms=1e6}}", model), Change::kNone);
}

TEST(PruneChannels, MeasuresALatencyOfTheEngine) {
  Model model = resnet();
  model.eval();
  const std::string refused = refusal("prune.channels{budget={engine_ms=1e-6}}", model);
  if (!has_engine()) {
    EXPECT_THAT(refused, HasSubstr("oneDNN"));
    return;
  }
  EXPECT_THAT(refused, HasSubstr("1e-06 milliseconds in the engine cannot be reached"));
  EXPECT_EQ(run_pass("prune.channels{budget={engine_ms=1e6}}", model), Change::kNone);
}

TEST(PruneChannels, LeavesWhatItWasNotAskedFor) {
  Model model = resnet();
  run_passes("prune.channels{budget={macs=0.6},where=layer*.conv1*}", model);
  EXPECT_EQ(model.tensor("conv1.weight").size(0), 16);
  EXPECT_EQ(model.tensor("layer3.2.conv2.weight").size(0), 64);
  EXPECT_LT(model.tensor("layer2.1.conv1.weight").size(0), 32);
}

TEST(PruneChannels, RemovesByEveryCriterion) {
  const TrainingEnvironment training = [] {
    TrainingEnvironment environment;
    environment.has_data = [](const std::string& entry) { return entry == "calibration"; };
    environment.open_data = [](const std::string&, bool) {
      at::manual_seed(1);
      return tensor_dataset({at::randn({40, 3, 32, 32})}, at::arange(40).remainder(10), "random");
    };
    return environment;
  }();
  for (const std::string_view criterion : option_names(ChannelCriterion{})) {
    SCOPED_TRACE(criterion);
    Model model = resnet();
    model.eval();
    RunOptions options = calibrated({at::randn({8, 3, 32, 32})});
    options.training = &training;
    const RunResult result =
        run_passes("prune.channels{budget={macs=0.7},criterion=" + std::string(criterion) + "}",
                   model, options);
    EXPECT_LE(measured(result, "macs_kept"), 0.7);
    EXPECT_GE(measured(result, "macs_kept"), 0.65);
    EXPECT_EQ(model.forward({at::randn({2, 3, 32, 32})})[0].sizes(), (std::vector<int64_t>{2, 10}));
  }
}

// As attention to another sequence has it: the query's rows apart from the others'.
TEST(PruneChannels, TakesWeightsThatAreUsedInParts) {
  Model model = parse_filled(R"(
input x : f32[batch,8]
parameter a.weight : f32[12,8]
parameter b.weight : f32[4,6]
parameter c.weight : f32[4,6]
first = aten::slice.Tensor(a.weight, 0, 0, 6) : f32[6,8]
rest = aten::slice.Tensor(a.weight, 0, 6, 12) : f32[6,8]
p = aten::linear(x, first) : f32[batch,6]
q = aten::linear(x, rest) : f32[batch,6]
b = aten::linear(p, b.weight) : f32[batch,4]
c = aten::linear(q, c.weight) : f32[batch,4]
sum = aten::add.Tensor(b, c) : f32[batch,4]
return y = sum
)");
  for (const char* more : {"", ",compensate=refit"}) {
    Model pruned = model.clone();
    const RunResult result =
        run_passes(std::string("prune.channels{budget={parameters=0.6},rounds=2") + more + "}",
                   pruned, calibrated(at::randn({50, 8})));
    EXPECT_LE(measured(result, "parameters_kept"), 0.6);
    EXPECT_LT(pruned.tensor("a.weight").size(0), 12);
  }
}

TEST(PruneChannels, InRoundsEndsAtTheSameBudget) {
  Model model = resnet();
  const RunResult result = run_passes("prune.channels{budget={macs=0.5},rounds=3}", model);
  EXPECT_NEAR(measured(result, "macs_kept"), 0.5, 0.02);
}

// Half of the channels are copies of others: what is left can do the same.
TEST(PruneChannels, RefitsWhatIsRedundantExactly) {
  for (const char* how : {"refit", "merge"}) {
    SCOPED_TRACE(how);
    Model model = parse_filled(R"(
input x : f32[batch,12]
parameter a.weight : f32[8,12]
parameter a.bias : f32[8]
parameter b.weight : f32[6,8]
parameter b.bias : f32[6]
a = aten::linear(x, a.weight, a.bias) : f32[batch,8]
h = aten::relu(a) : f32[batch,8]
b = aten::linear(h, b.weight, b.bias) : f32[batch,6]
return y = b
)");
    at::Tensor weight = model.tensor("a.weight").clone(), bias = model.tensor("a.bias").clone();
    weight.narrow(0, 4, 4).copy_(0.5 * weight.narrow(0, 0, 4));
    bias.narrow(0, 4, 4).copy_(0.5 * bias.narrow(0, 0, 4));
    model.set_tensor("a.weight", weight);
    model.set_tensor("a.bias", bias);
    at::Tensor readers = model.tensor("b.weight").clone();
    readers.narrow(1, 4, 4).mul_(0.01);  // so that the copies are those that go
    model.set_tensor("b.weight", readers);
    const Model original = model.clone();
    run_passes(std::string("prune.channels{budget={parameters=0.53},compensate=") + how +
                   ",ridge=1e-9,where=a.weight}",
               model, calibrated(samples()));
    ASSERT_EQ(model.tensor("a.weight").size(0), 4);
    EXPECT_LT(output_error(model, original), 1e-8);
  }
}

TEST(PruneChannels, CompensationBringsOutputsBack) {
  const Model original = parse_filled(kTwoLayers);
  const std::string line = "prune.channels{budget={parameters=0.6},compensate=";
  std::map<std::string, double> errors;
  for (const char* how : {"none", "merge", "refit"}) {
    Model model = original.clone();
    run_passes(line + how + ",rounds=2}", model, calibrated(samples()));
    errors[how] = output_error(model, original);
  }
  EXPECT_LT(errors["refit"], errors["merge"]);
  EXPECT_LT(errors["merge"], errors["none"]);
}

TEST(PruneChannels, NotesWhichChannelsAreLeft) {
  const Model original = resnet();
  Model model = resnet();
  run_passes("prune.channels{budget={macs=0.8},rounds=2},prune.channels{budget={macs=0.7}}", model);
  const std::string name = "layer2.0.bn1.running_mean";
  const auto places = channels_in(original, model, name);
  ASSERT_TRUE(places.has_value());
  const at::Tensor expected = original.tensor(name).index_select(0, at::tensor(*places, at::kLong));
  EXPECT_LT(places->size(), 32u);
  EXPECT_TRUE(at::equal(model.tensor(name), expected));
}

TEST(PruneChannels, RefusesBeforeAnythingIsChanged) {
  Model model = resnet();
  EXPECT_THAT(refusal("prune.channels{budget={macs=0.001}}", model),
              HasSubstr("cannot be reached: with all channels gone that may go"));
  EXPECT_THAT(refusal("prune.channels{where=linear.weight}", model),
              HasSubstr("no channel of the selected layers can go"));
  EXPECT_THAT(refusal("prune.channels{budget={macs=0.5,parameters=0.5}}", model),
              HasSubstr("which has one limit"));
  EXPECT_THAT(refusal("prune.channels{budget={macs=1.5}}", model), HasSubstr("outside (0, 1]"));
  EXPECT_THAT(refusal("prune.channels{budget={bytes=many}}", model),
              HasSubstr("\"many\" is not a size"));
  EXPECT_THAT(refusal("prune.channels{criterion=taylor}", model), HasSubstr("needs labelled data"));
  EXPECT_THAT(refusal("prune.channels{criterion=apoz}", model), HasSubstr("calibration"));
  Model tensors = parse_model("fc.weight : f32[1,4] = [[1, -4, 3, -2]]");
  EXPECT_THAT(refusal("prune.channels", tensors), HasSubstr("tensors without a graph"));
}

}  // namespace
}  // namespace compress::testing
