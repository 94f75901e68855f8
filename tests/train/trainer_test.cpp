// The training loop: against loops written by hand, killed and resumed, and with what does not fit.

#include "compress/train/trainer.h"

#include "compress/data/loader.h"
#include "compress/data/tensors.h"
#include "compress/graph/digest.h"
#include "compress/graph/text.h"
#include "tests/support/errors.h"
#include "tests/train/training_fixture.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <fstream>

namespace compress {
namespace {

using testing::conv_network;
using testing::environment_of;
using ::testing::HasSubstr;
using testing::linear_network;
using testing::message_of;
using testing::toy_data;
using testing::train_model;
using testing::train_options;

TEST(Train, EqualsALoopWrittenByHand) {
  const DatasetPtr data = toy_data({8}, 64);
  Model trained = linear_network();
  const TrainOptions options = train_options(R"({
    "epochs": 3, "batch_size": 16, "workers": 0,
    "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}}})");
  const TrainResult result = train_model(trained, options, environment_of(data));
  EXPECT_EQ(result.steps, 12);

  // The gradient of softmax regression in closed form; the order of samples is the loader's.
  const Model fresh = linear_network();
  at::Tensor weight = fresh.tensor("fc.weight").clone(), bias = fresh.tensor("fc.bias").clone();
  at::Tensor weight_velocity = at::zeros_like(weight), bias_velocity = at::zeros_like(bias);
  PassContext context(1);
  Loader loader(data, {.batch_size = 16,
                       .shuffle = true,
                       .seed = context.generator("samples").current_seed(),
                       .threads = 0});
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    loader.start(epoch);
    while (const auto batch = loader.next()) {
      const at::Tensor& x = batch->inputs[0];
      const at::Tensor wrong =
          (at::linear(x, weight, bias).softmax(1) - at::one_hot(batch->labels, 4)) / 16;
      weight_velocity = weight_velocity * 0.9 + wrong.t().matmul(x) + weight * 0.01;
      bias_velocity = bias_velocity * 0.9 + wrong.sum(0) + bias * 0.01;
      weight = weight - weight_velocity * 0.1;
      bias = bias - bias_velocity * 0.1;
    }
  }
  EXPECT_TRUE(at::allclose(trained.tensor("fc.weight"), weight, 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(trained.tensor("fc.bias"), bias, 1e-5, 1e-6));
}

TEST(Train, LearnsAndLeavesAnOrdinaryModel) {
  const DatasetPtr data = toy_data({3, 8, 8}, 256);
  Model model = conv_network();
  const TrainOptions options = train_options(R"({
    "epochs": 6, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.05}}, "schedule": "cosine",
    "validation": "train", "channels_last": true})");
  const double before = evaluate(model, data, {Metric::kTop1})[0];
  const TrainResult result = train_model(model, options, environment_of(data));
  EXPECT_GT(result.validation.at("top1"), before + 10);
  EXPECT_DOUBLE_EQ(evaluate(model, data, {Metric::kTop1})[0], result.validation.at("top1"));
  for (const NamedTensor& named : model.tensors()) {
    EXPECT_FALSE(named.tensor.requires_grad()) << named.name;
    EXPECT_TRUE(named.tensor.is_contiguous()) << named.name;
  }
}

TEST(Train, GivesTheSameBytesForTheSameSeedWhateverTheLoader) {
  const DatasetPtr data = toy_data({3, 8, 8}, 96);
  const auto digest = [&](const std::string& workers, uint64_t seed) {
    Model model = conv_network();
    const TrainOptions options =
        train_options(R"({"epochs": 2, "batch_size": 32, "workers": )" + workers + "}");
    train_model(model, options, environment_of(data), {}, seed);
    return model_digest(model);
  };
  EXPECT_EQ(digest("0", 1), digest("3", 1));
  EXPECT_NE(digest("0", 1), digest("0", 2));
}

TEST(Train, AccumulatesBatchesIntoTheStepOfALargeOne) {
  const DatasetPtr data = toy_data({8}, 64);
  Model whole = linear_network(), parts = linear_network();
  train_model(whole, train_options(R"({"epochs": 2, "batch_size": 32, "optimizer": "sgd"})"),
              environment_of(data));
  train_model(
      parts,
      train_options(R"({"epochs": 2, "batch_size": 8, "accumulate": 4, "optimizer": "sgd"})"),
      environment_of(data));
  EXPECT_TRUE(at::allclose(whole.tensor("fc.weight"), parts.tensor("fc.weight"), 1e-5, 1e-6));
}

TEST(Train, EndsAsTheMovingAverageIfAsked) {
  const DatasetPtr data = toy_data({8}, 32);
  // One step an epoch and a decay of 1/2: the average is the mean of the start and the step.
  Model plain = linear_network(), averaged = linear_network();
  const std::string one_step = R"("epochs": 1, "batch_size": 32, "optimizer": "sgd")";
  train_model(plain, train_options("{" + one_step + "}"), environment_of(data));
  train_model(averaged, train_options("{" + one_step + R"(, "ema": 0.5})"), environment_of(data));
  const Model start = linear_network();
  const at::Tensor mean = (start.tensor("fc.weight") + plain.tensor("fc.weight")) / 2;
  EXPECT_TRUE(at::allclose(averaged.tensor("fc.weight"), mean, 1e-6, 1e-7));
}

TEST(Train, TakesASingleSample) {
  Model model = linear_network();
  const TrainResult result = train_model(model, train_options(R"({"epochs": 2, "batch_size": 1})"),
                                         environment_of(toy_data({8}, 1)));
  EXPECT_EQ(result.steps, 2);
}

TEST(Train, KeepsFrozenParameters) {
  Model model = conv_network();
  const at::Tensor before = model.tensor("conv1.weight").clone();
  const TrainOptions options = train_options(R"({"batch_size": 32, "optimizer": "adamw",
    "groups": [{"where": "conv1.*", "freeze": true}]})");
  train_model(model, options, environment_of(toy_data({3, 8, 8}, 64)));
  EXPECT_TRUE(model.tensor("conv1.weight").equal(before));
  EXPECT_FALSE(model.tensor("conv2.weight").equal(conv_network().tensor("conv2.weight")));
}

TEST(Train, TrainsInBfloat16) {
  Model model = conv_network();
  const TrainOptions options = train_options(
      R"({"epochs": 2, "batch_size": 32, "precision": "bf16", "channels_last": true})");
  const TrainResult result = train_model(model, options, environment_of(toy_data({3, 8, 8}, 128)));
  EXPECT_TRUE(std::isfinite(result.loss));
  EXPECT_EQ(model.tensor("conv1.weight").scalar_type(), at::kFloat);
}

TEST(Train, LogsAnEpochALine) {
  const std::filesystem::path log = std::filesystem::path(::testing::TempDir()) / "train.jsonl";
  TrainOptions options = train_options(R"({"epochs": 2, "batch_size": 32, "validation": "test"})");
  options.log = log.string();
  Model model = linear_network();
  const TrainResult result = train_model(model, options, environment_of(toy_data({8}, 64)));
  std::ifstream file(log);
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(Json::parse(line));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1]["epoch"], 2);
  EXPECT_EQ(lines[1]["step"], 4);
  EXPECT_DOUBLE_EQ(lines[1]["loss"].get<double>(), result.loss);
  EXPECT_DOUBLE_EQ(lines[1]["validation"]["top1"].get<double>(), result.validation.at("top1"));
}

// A hook cannot be made to fail at will, but data can.
class FailingData final : public Dataset {
 public:
  FailingData(DatasetPtr inner, int64_t calls)
      : Dataset(inner->info()), inner_(std::move(inner)), left_(calls) {}
  int64_t size() const override { return inner_->size(); }
  Batch get(const std::vector<int64_t>& indices, const Draw& draw) const override {
    if (left_-- == 0) throw Error(ErrorCode::kIo, "pulled out");
    return inner_->get(indices, draw);
  }

 private:
  DatasetPtr inner_;
  mutable int64_t left_;
};

class Resumed : public ::testing::TestWithParam<const char*> {};

TEST_P(Resumed, EndsInTheSameBytesAsAnUndisturbedRun) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "resumed-training";
  std::filesystem::remove_all(folder);
  const DatasetPtr data = toy_data({3, 8, 8}, 96);
  TrainOptions options = train_options(R"({
    "epochs": 3, "batch_size": 32, "workers": 0, "checkpoint_steps": 2, "ema": 0.9,
    "optimizer": "adamw", "schedule": {"cosine": {"warmup_epochs": 1}}})");
  Model undisturbed = conv_network();
  train_model(undisturbed, options, environment_of(data), GetParam());

  TrainingEnvironment environment = environment_of(data, folder);
  environment.resume = true;
  const auto broken = std::make_shared<FailingData>(data, 6);  // one batch goes to prepare losses
  environment.open_data = [&](const std::string&, bool) -> DatasetPtr { return broken; };
  Model first = conv_network();
  EXPECT_THAT(message_of([&] { train_model(first, options, environment, GetParam()); }),
              HasSubstr("pulled out"));
  ASSERT_TRUE(std::filesystem::exists(folder / "training.json"));

  int64_t batches = 0;
  environment.open_data = [&](const std::string&, bool) -> DatasetPtr {
    ++batches;
    return data;
  };
  Model second = conv_network();
  const TrainResult result = train_model(second, options, environment, GetParam());
  EXPECT_EQ(result.steps, 9);
  EXPECT_EQ(print(second), print(undisturbed));
  EXPECT_EQ(model_digest(second), model_digest(undisturbed));
}

INSTANTIATE_TEST_SUITE_P(With, Resumed,
                         ::testing::Values("", "prune.gradual{sparsity=0.75,frequency=1}",
                                           "prune.gradual{criterion=taylor,frequency=2,end=3}",
                                           "quantize.qat{bits=3,activations=8}"));

TEST(TrainRefuses, ACheckpointOfAnotherNumberOfThreads) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "threads-training";
  std::filesystem::remove_all(folder);
  const DatasetPtr data = toy_data({8}, 64);
  const TrainOptions options = train_options(R"({"epochs": 3, "batch_size": 32, "workers": 0})");
  TrainingEnvironment environment = environment_of(data, folder);
  const auto broken = std::make_shared<FailingData>(data, 4);
  environment.open_data = [&](const std::string&, bool) -> DatasetPtr { return broken; };
  Model model = linear_network();
  EXPECT_THAT(message_of([&] { train_model(model, options, environment); }),
              HasSubstr("pulled out"));
  environment.resume = true;
  environment.open_data = [&](const std::string&, bool) { return data; };
  const int threads = at::get_num_threads();
  at::set_num_threads(threads + 1);
  Model again = linear_network();
  EXPECT_THAT(message_of([&] { train_model(again, options, environment); }),
              HasSubstr("cannot go on with"));
  at::set_num_threads(threads);
  PassContext other(1);
  other.key = "another recipe";
  EXPECT_THAT(message_of([&] { train(again, options, {}, environment, other); }),
              HasSubstr("another recipe, data, seed or model"));
}

TEST(TrainRefuses, ToGoOnWithoutAFiniteLoss) {
  Model model = conv_network();
  const TrainOptions options =
      train_options(R"({"epochs": 9, "batch_size": 32, "optimizer": {"sgd": {"lr": 1e12}}})");
  const std::string said = message_of([&] {
    train_model(model, options, environment_of(toy_data({3, 8, 8}, 64)));
  });
  EXPECT_THAT(said, HasSubstr("step "));
  EXPECT_THAT(said, HasSubstr("not finite"));
  EXPECT_THAT(said, HasSubstr("lower the learning rate"));
}

TEST(TrainRefuses, DataThatDoesNotFit) {
  const auto refusal = [](const DatasetPtr& data, const std::string& options) {
    return message_of([&] {
      Model model = linear_network();
      train_model(model, train_options(options), environment_of(data));
    });
  };
  EXPECT_THAT(refusal(toy_data({9}, 64), R"({"batch_size": 32})"), HasSubstr("[9]"));
  EXPECT_THAT(refusal(toy_data({8}, 16), R"({"batch_size": 32})"), HasSubstr("fewer than a batch"));
  EXPECT_THAT(refusal(toy_data({8}, 64, /*classes=*/9), R"({"batch_size": 32})"),
              HasSubstr("label"));
  EXPECT_THAT(refusal(tensor_dataset({at::randn({64, 8})}, {}, "mute"), R"({"batch_size": 32})"),
              HasSubstr("labels"));
  EXPECT_THAT(refusal(toy_data({8}, 64), R"({"batch_size": 32,
                "groups": [{"where": "layer9.*", "lr_scale": 0.1}]})"),
              HasSubstr("layer9"));
  EXPECT_THAT(refusal(toy_data({8}, 64), R"({"batch_size": 32,
                "groups": [{"where": "*", "freeze": true}]})"),
              HasSubstr("nothing to train"));
}

}  // namespace
}  // namespace compress
