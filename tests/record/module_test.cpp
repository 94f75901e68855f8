// A Model as a torch::nn::Module.

#include "compress/module.h"

#include "compress/graph/builder.h"

#include <torch/nn.h>
#include <torch/optim/sgd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace compress {
namespace {

Model small_network() {
  GraphBuilder net;
  Value* x = net.input("x", at::kFloat, {Dim("batch", 2), 3, 8, 8});
  {
    const auto module = net.scope("block.0");
    x = net.relu(net.batch_norm(net.conv(x, "conv", 3, 4, {.padding = 1}), "bn", 4));
  }
  x = net.linear(net.global_average(x), "fc", 4, 2);
  return initialize(net.finish({{"output", x}}), /*seed=*/3);
}

TEST(ModelModule, HasTheModelsNames) {
  const ModelModule module(small_network());
  std::vector<std::string> parameters, buffers;
  for (const auto& item : module.named_parameters()) parameters.push_back(item.key());
  for (const auto& item : module.named_buffers()) buffers.push_back(item.key());
  EXPECT_THAT(parameters,
              ::testing::UnorderedElementsAre("block.0.conv.weight", "block.0.bn.weight",
                                              "block.0.bn.bias", "fc.weight", "fc.bias"));
  EXPECT_THAT(buffers,
              ::testing::UnorderedElementsAre("block.0.bn.running_mean", "block.0.bn.running_var"));
}

TEST(ModelModule, LearnsUnderAnOptimizerOfLibTorch) {
  at::set_num_threads(1);
  at::manual_seed(5);
  ModelModule module(small_network());
  module.train();
  torch::optim::SGD optimizer(module.parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  const at::Tensor images = at::randn({16, 3, 8, 8});
  const at::Tensor labels = (images.select(1, 0).mean({1, 2}) > 0).to(at::kLong);
  std::vector<double> losses;
  for (int step = 0; step < 30; ++step) {
    optimizer.zero_grad();
    const at::Tensor loss = at::cross_entropy_loss(module.forward(images), labels);
    loss.backward();
    optimizer.step();
    losses.push_back(loss.item<double>());
  }
  EXPECT_LT(losses.back(), 0.7 * losses.front());
  EXPECT_FALSE(module.model().tensor("block.0.bn.running_mean").equal(at::zeros({4})))
      << "training mode did not reach the graph";
}

TEST(ModelModule, SwitchesToInference) {
  ModelModule module(small_network());
  module.eval();
  EXPECT_FALSE(module.is_training());
  module.forward(at::ones({2, 3, 8, 8}));
  EXPECT_TRUE(module.model().tensor("block.0.bn.running_mean").equal(at::zeros({4})));
}

TEST(ModelModule, SharesItsTensorsWithTheModel) {
  ModelModule module(small_network());
  EXPECT_TRUE(module.named_parameters()["fc.weight"].is_same(module.model().tensor("fc.weight")));
  module.to(at::kDouble);
  EXPECT_EQ(module.forward(at::ones({2, 3, 8, 8}, at::kDouble)).scalar_type(), at::kDouble);
}

}  // namespace
}  // namespace compress
