// Tests of passes/prune/heads.

#include "compress/zoo/zoo.h"
#include "tests/support/channels.h"
#include "tests/support/pass_test.h"

#include <fmt/format.h>

#include <utility>

namespace compress::testing {
namespace {

TEST(PruneHeads, RemovesAHeadOfEachAttention) {
  Model model = zoo::build("nanogpt{layers=2,heads=4,width=32,context=16}");
  const RunResult result = run_passes("prune.heads{share=0.5}", model);
  EXPECT_EQ(result.steps.at(0).counts.at("heads_removed"), 4);
  for (const char* layer : {"0", "1"}) {
    const std::string path = std::string("transformer.h.") + layer + ".attn.";
    EXPECT_EQ(model.tensor(path + "c_attn.weight").sizes(), (std::vector<int64_t>{48, 32}));
    EXPECT_EQ(model.tensor(path + "c_proj.weight").sizes(), (std::vector<int64_t>{32, 16}));
  }
}

// A head that writes nothing goes first, and nobody notices.
TEST(PruneHeads, RemovesTheOneThatDoesNothing) {
  Model model = zoo::build("nanogpt{layers=1,heads=4,width=32,context=16}");
  randomise_constants(model, 2);
  const std::string path = "transformer.h.0.attn.";
  at::Tensor out = model.tensor(path + "c_proj.weight").clone();
  at::Tensor in = model.tensor(path + "c_attn.weight").clone();
  out.narrow(1, 16, 8).zero_();
  for (const int64_t part : {0, 32, 64}) in.narrow(0, part + 16, 8).mul_(0.01);
  model.set_tensor(path + "c_proj.weight", out);
  model.set_tensor(path + "c_attn.weight", in);
  const std::vector<at::Tensor> inputs = random_inputs(model, 2, 1);
  const std::vector<at::Tensor> before = model.forward(inputs);
  run_passes("prune.heads{share=0.25}", model);
  EXPECT_EQ(model.tensor(path + "c_proj.weight").size(1), 24);
  EXPECT_LT(difference(model.forward(inputs), before), 1e-5);
}

TEST(PruneHeads, LeavesOneOfEachAttention) {
  Model model = zoo::build("nanogpt{layers=2,heads=4,width=32,context=16}");
  Model same = model.clone();
  const RunResult result = run_passes("prune.heads{share=0.75,scope=model}", model);
  EXPECT_EQ(result.steps.at(0).counts.at("heads_removed"), 6);
  EXPECT_EQ(run_passes("prune.heads{share=1}", same).steps.at(0).counts.at("heads_removed"), 6);
}

TEST(PruneHeads, TakesTheShareThatWasAskedFor) {
  for (const auto& [share, removed] : {std::pair{"0.8", 8}, {"0.9", 9}, {"0.85", 8}}) {
    Model model = zoo::build("nanogpt{layers=1,heads=10,width=40,context=16}");
    const RunResult result = run_passes(fmt::format("prune.heads{{share={}}}", share), model);
    EXPECT_EQ(result.steps.at(0).counts.at("heads_removed"), removed) << share;
  }
}

// Weights of branches, and a softmax over places, are no attention.
TEST(PruneHeads, AreNotWhatEverySoftmaxHas) {
  Model model = parse_filled(R"(
input x : f32[2,4,6,6]
parameter a.weight : f32[8,4,1,1]
parameter b.weight : f32[4,8,1,1]
a = aten::conv2d(x, a.weight) : f32[2,8,6,6]
places = aten::softmax.int(a, -1) : f32[2,8,6,6]
b = aten::conv2d(places, b.weight) : f32[2,4,6,6]
return y = b
)");
  EXPECT_THAT(refusal("prune.heads", model), HasSubstr("no attention whose heads can go"));
}

TEST(PruneHeads, RefusesLayersThatMakeNoHeads) {
  Model model = zoo::build("nanogpt{layers=2,heads=4,width=32,context=16}");
  EXPECT_THAT(refusal("prune.heads{where=*mlp.c_fc*}", model),
              HasSubstr("the selected layers make no heads"));
}

TEST(PruneHeads, RefusesANetworkWithoutAttention) {
  Model model = zoo::build("lenet5");
  EXPECT_THAT(refusal("prune.heads", model), HasSubstr("no attention whose heads can go"));
  EXPECT_THAT(refusal("prune.heads{criterion=taylor}", model), HasSubstr("does not judge heads"));
}

}  // namespace
}  // namespace compress::testing
