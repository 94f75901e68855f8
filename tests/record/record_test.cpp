// Recording torch::nn modules: same outputs, shared parameters, canonical graphs.

#include "compress/record/record.h"

#include "compress/graph/text.h"

#include <torch/nn.h>
#include <torch/optim/sgd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace compress {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> operators(const Model& model) {
  std::vector<std::string> names;
  for (const Node& node : model.graph().nodes()) names.push_back(node.op());
  return names;
}

struct SmallCnn : torch::nn::Module {
  torch::nn::Conv2d conv1{nullptr}, conv2{nullptr};
  torch::nn::BatchNorm2d bn1{nullptr};
  torch::nn::Dropout dropout{nullptr};
  torch::nn::Linear fc{nullptr};

  SmallCnn() {
    conv1 =
        register_module("conv1", torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 3).padding(1)));
    bn1 = register_module("bn1", torch::nn::BatchNorm2d(4));
    conv2 =
        register_module("conv2", torch::nn::Conv2d(torch::nn::Conv2dOptions(4, 4, 3).padding(1)));
    dropout = register_module("dropout", torch::nn::Dropout(0.5));
    fc = register_module("fc", torch::nn::Linear(4, 5));
  }
  at::Tensor forward(const at::Tensor& image) {
    at::Tensor x = bn1(conv1(image)).relu_();
    at::Tensor y = conv2(x);
    y += x;
    y = torch::adaptive_avg_pool2d(torch::relu(y), {1, 1}).flatten(1);
    return fc(dropout(y));
  }
};

class Recorder : public ::testing::Test {
 protected:
  Recorder() {
    at::set_num_threads(1);
    at::manual_seed(7);
  }
};

TEST_F(Recorder, KeepsTheOutputsOfACnnInInference) {
  SmallCnn cnn;
  cnn.eval();
  const at::Tensor x = at::randn({2, 3, 8, 8});
  const Model model = record(cnn, {x});
  const at::Tensor other = at::randn({2, 3, 8, 8});
  EXPECT_TRUE(model.forward({other}).at(0).equal(cnn.forward(other)));
}

TEST_F(Recorder, FreesTheBatch) {
  SmallCnn cnn;
  cnn.eval();
  const Model model = record(cnn, {at::randn({2, 3, 8, 8})});
  const at::Tensor five = at::randn({5, 3, 8, 8});
  EXPECT_TRUE(at::allclose(model.forward({five}).at(0), cnn.forward(five), 1e-5, 1e-6));
  EXPECT_THAT(print(model), HasSubstr("input input : f32[batch,3,8,8]"))
      << ::testing::PrintToString(model.notes);
}

TEST_F(Recorder, KeepsOutputsAndStatisticsOfACnnInTraining) {
  SmallCnn cnn, twin;
  for (size_t i = 0; i < twin.parameters().size(); ++i) {
    const c10::NoGradGuard no_grad;
    twin.parameters()[i].copy_(cnn.parameters()[i]);
  }
  Model model = record(cnn, {at::randn({4, 3, 8, 8})});
  EXPECT_EQ(cnn.bn1->num_batches_tracked.item<int64_t>(), 0) << "recording left a trace";
  EXPECT_TRUE(cnn.bn1->running_mean.equal(at::zeros({4})));

  const at::Tensor x = at::randn({4, 3, 8, 8});
  at::manual_seed(1);
  const at::Tensor y = model.forward({x}).at(0);
  at::manual_seed(1);
  EXPECT_TRUE(at::allclose(y, twin.forward(x)));
  EXPECT_TRUE(at::allclose(cnn.bn1->running_var, twin.bn1->running_var));
  EXPECT_EQ(model.tensor("bn1.num_batches_tracked").item<int64_t>(), 1);
}

TEST_F(Recorder, LeavesTheModeToBeFlipped) {
  SmallCnn cnn;
  cnn.eval();
  Model model = record(cnn, {at::randn({2, 3, 8, 8})});
  const at::Tensor x = at::randn({64, 3, 8, 8});
  model.train();
  EXPECT_FALSE(model.forward({x}).at(0).equal(model.forward({x}).at(0))) << "no dropout";
  model.eval();
  cnn.eval();
  EXPECT_TRUE(at::allclose(model.forward({x}).at(0), cnn.forward(x), 1e-5, 1e-6));
}

TEST_F(Recorder, WritesLayersAsTheExporterDoes) {
  SmallCnn cnn;
  cnn.eval();
  const Model model = record(cnn, {at::randn({2, 3, 8, 8})});
  EXPECT_THAT(
      operators(model),
      ::testing::ElementsAre("aten::conv2d", "aten::batch_norm", "aten::relu", "aten::conv2d",
                             "aten::add.Tensor", "aten::relu", "aten::adaptive_avg_pool2d",
                             "aten::flatten.using_ints", "aten::dropout", "aten::linear"));
  EXPECT_EQ(model.graph().nodes().back().module_path, "fc");
}

TEST_F(Recorder, SharesParametersBothWays) {
  SmallCnn cnn;
  cnn.eval();
  const at::Tensor x = at::randn({2, 3, 8, 8});
  const Model model = record(cnn, {x});

  torch::optim::SGD of_module(cnn.parameters(), torch::optim::SGDOptions(0.1));
  cnn.forward(x).square().sum().backward();
  of_module.step();
  EXPECT_TRUE(model.forward({x}).at(0).equal(cnn.forward(x)));

  of_module.zero_grad();
  const at::Tensor before = cnn.fc->weight.detach().clone();
  torch::optim::SGD of_model(model.parameters(), torch::optim::SGDOptions(0.1));
  model.forward({x}).at(0).square().sum().backward();
  of_model.step();
  EXPECT_FALSE(cnn.fc->weight.equal(before));
  EXPECT_TRUE(model.forward({x}).at(0).equal(cnn.forward(x)));
}

TEST_F(Recorder, KeepsTheOutputsOfATransformerEncoder) {
  torch::nn::TransformerEncoder encoder(torch::nn::TransformerEncoderOptions(
      torch::nn::TransformerEncoderLayerOptions(16, 4).dim_feedforward(32).dropout(0.1), 2));
  encoder->eval();
  const at::Tensor x = at::randn({6, 2, 16});  // [tokens, batch, width]
  const Model model = record(*encoder, {x}, {.dynamic_batch = false});
  const at::Tensor other = at::randn({6, 2, 16});
  EXPECT_TRUE(at::allclose(model.forward({other}).at(0), encoder->forward(other), 1e-5, 1e-6));
  EXPECT_THAT(operators(model), Contains("aten::linear"));
  EXPECT_THAT(operators(model), Not(Contains("aten::t")));
  EXPECT_THAT(operators(model), Not(Contains("aten::addmm")));
  // Two linears of the feed-forward part, query-key-value in one, and the projection.
  const auto ops = operators(model);
  EXPECT_EQ(std::count(ops.begin(), ops.end(), "aten::linear"), 8);
}

struct LstmClassifier : torch::nn::Module {
  torch::nn::LSTM lstm{nullptr};
  torch::nn::Linear head{nullptr};

  LstmClassifier() {
    lstm = register_module(
        "lstm", torch::nn::LSTM(torch::nn::LSTMOptions(5, 6).num_layers(2).batch_first(true)));
    head = register_module("head", torch::nn::Linear(6, 3));
  }
  std::tuple<at::Tensor, std::tuple<at::Tensor, at::Tensor>> forward(const at::Tensor& x) {
    const auto [all, state] = lstm(x);
    return {head(all), state};
  }
};

TEST_F(Recorder, KeepsTheOutputsAndStatesOfAnLstm) {
  LstmClassifier network;
  network.eval();
  const Model model = record(network, {at::randn({2, 7, 5})});
  const at::Tensor x = at::randn({2, 7, 5});
  const std::vector<at::Tensor> outputs = model.forward({x});
  const auto [logits, state] = network.forward(x);
  ASSERT_EQ(outputs.size(), 3u);
  EXPECT_TRUE(at::allclose(outputs[0], logits, 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(outputs[1], std::get<0>(state), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(outputs[2], std::get<1>(state), 1e-5, 1e-6));
  EXPECT_NE(model.find_tensor("lstm.weight_ih_l1"), nullptr);
}

struct Splits : torch::nn::Module {
  torch::nn::Linear fc{nullptr};
  at::Tensor scale;
  Splits() {
    fc = register_module("fc", torch::nn::Linear(4, 6));
    scale = torch::full({2}, 3.0);  // not registered: becomes a constant
  }
  std::vector<at::Tensor> forward(const at::Tensor& a, const at::Tensor& b) {
    const std::vector<at::Tensor> parts = fc(a).split(2, 1);
    return {parts[0] * scale, parts[2] + b * 0.5};
  }
};

TEST_F(Recorder, KeepsTheOutputsOfAListOperatorAndSeveralInputs) {
  Splits splits;
  const at::Tensor a = at::randn({3, 4}), b = at::randn({3, 2});
  const Model model = record(splits, {a, b}, {.input_names = {"a", "b"}});
  const auto expected = splits.forward(a, b);
  const auto outputs = model.forward({a, b});
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_TRUE(outputs[0].equal(expected[0]));
  EXPECT_TRUE(outputs[1].equal(expected[1]));
  EXPECT_EQ(model.find_tensor("constant_0")->role, TensorRole::kConstant);
  EXPECT_EQ(model.graph().inputs().at(1)->name(), "b");
}

struct Tied : torch::nn::Module {
  torch::nn::Linear first{nullptr}, second{nullptr};
  Tied() {
    first = register_module("first", torch::nn::Linear(torch::nn::LinearOptions(4, 4).bias(false)));
    second =
        register_module("second", torch::nn::Linear(torch::nn::LinearOptions(4, 4).bias(false)));
    second->weight = second->register_parameter("tied", first->weight);
  }
  at::Tensor forward(const at::Tensor& x) { return second(first(x)); }
};

TEST_F(Recorder, KnowsTiedParameters) {
  Tied tied;
  const Model model = record(tied, {at::randn({3, 4})});
  EXPECT_EQ(model.parameters().size(), 1u);
  EXPECT_EQ(model.find_tensor("second.tied"), model.find_tensor("first.weight"));
}

TEST_F(Recorder, SaysThatANumberIsBakedIn) {
  const auto halve = [](const std::vector<at::Tensor>& inputs) -> std::vector<at::Tensor> {
    return {inputs[0] * inputs[0].max().item<double>()};
  };
  const Model model = record_function(halve, {at::ones({2})}, {}, {.dynamic_batch = false});
  ASSERT_FALSE(model.notes.empty());
  EXPECT_THAT(model.notes.front(), HasSubstr("baked in"));
}

TEST_F(Recorder, IsUsableAgainAfterAForwardThatThrew) {
  const auto fail = [](const std::vector<at::Tensor>&) -> std::vector<at::Tensor> {
    throw std::runtime_error("no");
  };
  EXPECT_THROW(record_function(fail, {at::ones({2})}, {}), std::runtime_error);
  SmallCnn cnn;
  EXPECT_NO_THROW(record(cnn, {at::randn({2, 3, 8, 8})}));
}

TEST_F(Recorder, RefusesAWrongNumberOfInputs) {
  SmallCnn cnn;
  EXPECT_THROW(record(cnn, {at::ones({2}), at::ones({2})}), Error);
}

}  // namespace
}  // namespace compress
