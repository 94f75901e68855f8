// Loading weights into the zoo's networks, and finding the network that weights belong to.

#include "compress/error.h"
#include "compress/io/state_dict.h"
#include "compress/zoo/architecture.h"
#include "compress/zoo/zoo.h"
#include "tests/support/errors.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Weights = std::map<std::string, at::Tensor>;

Weights weights_of(const Model& model) {
  Weights weights;
  for (const NamedTensor& tensor : model.tensors()) {
    weights[tensor.name] = tensor.tensor;
    for (const std::string& alias : tensor.aliases) weights[alias] = tensor.tensor;
  }
  return weights;
}

StateDict state_dict(const Weights& weights) {
  StateDict dict;
  dict.tensors.assign(weights.begin(), weights.end());
  return dict;
}

std::vector<std::string> proposed(const StateDict& weights) {
  std::vector<std::string> names;
  for (const zoo::Proposal& proposal : zoo::propose(weights)) names.push_back(proposal.spec);
  return names;
}

TEST(ZooSpec, NamesTheNearestArchitecture) {
  EXPECT_THAT(testing::message_of([] { zoo::build("resnet20-cifar"); }),
              HasSubstr("resnet20-cifar10"));
}

TEST(ZooSpec, ListsTheNumbersOfAnArchitecture) {
  const std::string text = testing::message_of([] { zoo::build("nanogpt{depth=3}"); });
  EXPECT_THAT(text, HasSubstr("no number `depth`"));
  EXPECT_THAT(text, HasSubstr("layers, heads, width"));
}

TEST(ZooSpec, RefusesNumbersThatMakeNoNetwork) {
  EXPECT_THAT(testing::message_of([] { zoo::build("nanogpt{heads=5}"); }),
              HasSubstr("width 384 is not a multiple of heads 5"));
  EXPECT_THAT(testing::message_of([] { zoo::build("resnet20-cifar10{classes=0}"); }),
              HasSubstr("at least 1"));
  EXPECT_THAT(testing::message_of([] { zoo::build("resnet20-cifar10{classes=ten}"); }),
              HasSubstr("`ten`"));
  EXPECT_THAT(testing::message_of([] { zoo::build("wrn-16-4-cifar10{depth=17}"); }),
              HasSubstr("6n+4"));
}

TEST(ZooBuild, GivesTheSameWeightsForTheSameSeed) {
  const auto weight = [](uint64_t seed) {
    return zoo::build("lenet5{seed=" + std::to_string(seed) + "}")
        .tensor("conv2.weight")
        .detach()
        .clone();
  };
  EXPECT_TRUE(weight(3).equal(weight(3)));
  EXPECT_FALSE(weight(3).equal(weight(4)));
}

TEST(ZooBuild, DrawsWeightsFromLibTorchsDefaultRange) {
  const Model model = zoo::build("lenet-300-100");
  const at::Tensor weight = model.tensor("fc1.weight").detach();
  const double bound = 1.0 / 28.0;  // 1 / sqrt(784)
  EXPECT_LE(weight.abs().max().item<double>(), bound);
  EXPECT_NEAR(weight.square().mean().item<double>(), bound * bound / 3, 0.02 * bound * bound);
}

TEST(ZooLoad, ListsEverythingThatDoesNotFit) {
  Model model = zoo::build("lenet-300-100");
  Weights weights = weights_of(model);
  weights["fc4.weight"] = weights["fc3.weight"];
  weights.erase("fc3.weight");
  weights["fc1.bias"] = at::zeros({7});
  const std::string text = testing::message_of([&] { zoo::load_into(model, state_dict(weights)); });
  EXPECT_THAT(text, HasSubstr("fc4.weight [10, 100]: the network has no such tensor (nearest: "
                              "fc3.weight [10, 100])"));
  EXPECT_THAT(text, HasSubstr("fc3.weight [10, 100]: missing in the file"));
  EXPECT_THAT(text, HasSubstr("fc1.bias [7]: the network has [300]"));
}

TEST(ZooLoad, ComparesWhatDoesNotFitWithTensorsOfItsSizes) {
  Weights strange;
  for (const auto& [name, tensor] : weights_of(zoo::build("resnet20-cifar10"))) {
    strange["backbone." + name] = tensor;
  }
  const std::string text =
      testing::message_of([&] { zoo::build_for("resnet20-cifar10", state_dict(strange)); });
  EXPECT_THAT(text, HasSubstr("backbone.conv1.weight [16, 3, 3, 3]: the network has no such tensor "
                              "(nearest: conv1.weight [16, 3, 3, 3])"));
  EXPECT_THAT(text, HasSubstr("layer3.2.bn1.bias [64]: missing in the file (nearest: "
                              "backbone.layer3.2.bn1.bias [64])"));
}

TEST(ZooLoad, SaysHowManyHeadsItTook) {
  const StateDict weights =
      state_dict(weights_of(zoo::build("nanogpt{layers=1,width=128,heads=4}")));
  EXPECT_THAT(zoo::build_for("nanogpt", weights).notes,
              ElementsAre(HasSubstr("took 2 heads of attention")));
  EXPECT_THAT(zoo::build_for("nanogpt{heads=4}", weights).notes, ElementsAre());
  EXPECT_THAT(testing::message_of([&] { zoo::build_for("nanogpt{heads=5}", weights); }),
              HasSubstr("width 128 is not a multiple of heads 5"));
}

TEST(ZooLoad, TakesFilesWithAndWithoutBatchNormCounters) {
  Model model = zoo::build("resnet20-cifar10");
  Weights weights = weights_of(model);
  EXPECT_NO_THROW(zoo::load_into(model, state_dict(weights)));
  weights["bn1.num_batches_tracked"] = at::zeros({}, at::kLong);
  EXPECT_NO_THROW(zoo::load_into(model, state_dict(weights)));
}

TEST(ZooLoad, TakesATiedTensorUnderEitherName) {
  const std::string spec = "nanogpt{layers=1,width=64,heads=1}";
  Model model = zoo::build(spec);
  Weights both = weights_of(model);
  ASSERT_TRUE(both.contains("lm_head.weight"));
  Weights head_only = both, differing = both;
  head_only.erase("transformer.wte.weight");
  differing["lm_head.weight"] = at::zeros({65, 64});
  EXPECT_NO_THROW(zoo::load_into(model, state_dict(both)));
  EXPECT_NO_THROW(zoo::load_into(model, state_dict(head_only)));
  EXPECT_THAT(testing::message_of([&] { zoo::load_into(model, state_dict(differing)); }),
              HasSubstr("lm_head.weight is tied to transformer.wte.weight"));
}

TEST(ZooLoad, ReadsNumbersFromTheSizesOfTheFile) {
  const Weights weights =
      weights_of(zoo::build("vit{layers=3,width=128,heads=2,hidden=96,patch=4,image=16,"
                            "channels=1,classes=7,keys=timm}"));
  const Model model = zoo::build_for("vit", state_dict(weights));
  EXPECT_EQ(model.tensor("blocks.2.mlp.fc1.weight").sizes(), at::IntArrayRef({96, 128}));
  const c10::NoGradGuard no_grad;
  EXPECT_EQ(model.forward({at::zeros({2, 1, 16, 16})}).at(0).sizes(), at::IntArrayRef({2, 7}));
}

TEST(ZooLoad, GivesParametersThatTrainAndBuffersThatDoNot) {
  const Weights weights = weights_of(zoo::build("resnet20-cifar10"));
  const Model model = zoo::build_for("resnet20-cifar10", state_dict(weights));
  EXPECT_TRUE(model.tensor("conv1.weight").requires_grad());
  EXPECT_FALSE(model.tensor("bn1.running_mean").requires_grad());
}

// The tensors of a blueprint have sizes and no memory, which is all that a proposal looks at.
TEST(ZooPropose, FindsEveryArchitectureByItsOwnSizesAndNames) {
  for (const zoo::Architecture& architecture : zoo::architectures()) {
    for (const zoo::Dialect& dialect : architecture.family.dialects) {
      const Blueprint net =
          zoo::blueprint(architecture, zoo::default_parameters(architecture), dialect);
      EXPECT_THAT(proposed(state_dict(weights_of(net.model))), ElementsAre(architecture.name))
          << architecture.name << " with the keys of " << dialect.name;
    }
  }
}

TEST(ZooPropose, ProposesNothingForStrangers) {
  EXPECT_TRUE(zoo::propose(state_dict({{"a.weight", at::zeros({2, 2})}})).empty());
  EXPECT_TRUE(zoo::propose(StateDict()).empty());
}

struct Checkpoint {
  const char* file;
  const char* architecture;
};

class ZooCheckpoint : public ::testing::TestWithParam<Checkpoint> {};

TEST_P(ZooCheckpoint, IsRecognisedAndLoads) {
  const auto file = testing::shared_file(std::string("checkpoints/") + GetParam().file);
  if (file.empty()) GTEST_SKIP() << "no shared checkpoints";
  const StateDict weights = load_state_dict(file);
  EXPECT_THAT(proposed(weights), ElementsAre(GetParam().architecture));
  EXPECT_NO_THROW(zoo::build_for(GetParam().architecture, weights));
}

INSTANTIATE_TEST_SUITE_P(
    OfOtherProjects, ZooCheckpoint,
    ::testing::Values(Checkpoint{"resnet20-cifar10.th", "resnet20-cifar10"},
                      Checkpoint{"resnet56-cifar10.th", "resnet56-cifar10"},
                      Checkpoint{"apot-resnet20-cifar10-fp32.pth.tar", "resnet20b-cifar10"},
                      Checkpoint{"distiller-resnet20-cifar10.pth.tar", "resnet20b-cifar10"},
                      Checkpoint{"lenet-300-100-fashion-mnist.pth.tar", "lenet-300-100"}));

// What akamaster's own network computes with its checkpoint on one image of a fixed pattern
// (`tests/golden/zoo/make_logits.py resnet20-cifar10.th` prints it).
TEST(ZooReference, ResNet20ComputesWhatItsAuthorsNetworkDoes) {
  const auto file = testing::shared_file("checkpoints/resnet20-cifar10.th");
  if (file.empty()) GTEST_SKIP() << "no shared checkpoints";
  const Model model = zoo::build_for("resnet20-cifar10", load_state_dict(file));
  const c10::NoGradGuard no_grad;
  const at::Tensor pattern = (at::arange(3 * 32 * 32, at::kDouble) * 0.37).sin();
  const at::Tensor logits = model.forward({pattern.to(at::kFloat).view({1, 3, 32, 32})}).at(0);
  const at::Tensor expected = at::tensor({4.884909, 9.472466, -2.832983, -2.463212, -6.170666,
                                          -4.410157, 4.273221, -9.299013, 0.126536, 6.422076});
  EXPECT_LT((logits[0] - expected).abs().max().item<double>(), 1e-4);
}

}  // namespace
}  // namespace compress
