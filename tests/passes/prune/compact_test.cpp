// Tests of passes/prune/compact.

#include "compress/zoo/zoo.h"
#include "tests/passes/second_order/two_layers.h"
#include "tests/support/channels.h"

namespace compress::testing {
namespace {

TEST(PruneCompact, RemovesWhatNobodyHears) {
  Model model = parse_filled(kTwoLayers);
  at::Tensor readers = model.tensor("b.weight").clone();
  readers.select(1, 3).zero_();
  readers.select(1, 17).zero_();
  model.set_tensor("b.weight", readers);
  const Model original = model.clone();
  const RunResult result = run_passes("prune.compact", model);
  EXPECT_EQ(result.steps.at(0).counts.at("channels_removed"), 2);
  EXPECT_EQ(model.tensor("a.weight").size(0), 18);
  EXPECT_LT(output_error(model, original), 1e-10);
}

TEST(PruneCompact, RemovesSilentChannelsOnlyWhereZeroIsSilence) {
  for (const std::string_view function : {"relu", "sigmoid"}) {
    SCOPED_TRACE(function);
    std::string text = kTwoLayers;
    text.replace(text.find("relu"), 4, function);
    Model model = parse_filled(text);
    at::Tensor makers = model.tensor("a.weight").clone();
    makers.narrow(0, 5, 3).zero_();
    model.set_tensor("a.weight", makers);
    const Model original = model.clone();
    run_passes("prune.compact", model);
    EXPECT_EQ(model.tensor("a.weight").size(0), function == "relu" ? 17 : 20);
    EXPECT_LT(output_error(model, original), 1e-10);
  }
}

TEST(PruneCompact, FollowsMasksThroughAWholeNetwork) {
  Model model = zoo::build("resnet20-cifar10");
  randomise_constants(model, 5);
  const std::vector<at::Tensor> inputs = random_inputs(model, 2, 1);
  run_pass("prune.magnitude{sparsity=0.997,where=layer1.*}", model);
  const std::vector<at::Tensor> before = model.forward(inputs);
  const int64_t width = model.tensor("layer1.0.conv1.weight").size(0);
  run_pass("prune.compact", model);
  EXPECT_LT(model.tensor("layer1.0.conv1.weight").size(0), width);
  EXPECT_LT(difference(model.forward(inputs), before), 1e-5);
}

// No weight reads the last two channels, but something else does.
TEST(PruneCompact, KeepsWhatIsReadWithoutAWeight) {
  for (const char* reader : {"aten::linalg_vector_norm(h, 2, [1])", "aten::mul.Tensor(h, h)",
                             "aten::sum.dim_IntList(h, [1], dtype=i64)"}) {
    SCOPED_TRACE(reader);
    Model model = parse_filled(std::string(R"(
input x : f32[2,4]
parameter a.weight : f32[6,4]
parameter b.weight : f32[3,6]
a = aten::linear(x, a.weight) : f32[2,6]
h = aten::relu(a) : f32[2,6]
b = aten::linear(h, b.weight) : f32[2,3]
s = )") + reader + "\nreturn y = b\nreturn z = s\n");
    at::Tensor readers = model.tensor("b.weight").clone();
    readers.narrow(1, 4, 2).zero_();
    model.set_tensor("b.weight", readers);
    EXPECT_EQ(run_pass("prune.compact", model), Change::kNone);
  }
}

TEST(PruneCompact, LeavesALivingNetworkAlone) {
  Model model = parse_filled(kTwoLayers);
  EXPECT_EQ(run_pass("prune.compact", model), Change::kNone);
}

}  // namespace
}  // namespace compress::testing
