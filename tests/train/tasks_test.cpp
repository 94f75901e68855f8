// What a network can be trained for: labels, targets, tokens, or to do as another network does.

#include "compress/data/tensors.h"
#include "compress/graph/digest.h"
#include "compress/train/trainer.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"
#include "tests/train/training_fixture.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <filesystem>

namespace compress {
namespace {

using testing::environment_of;
using ::testing::HasSubstr;
using testing::linear_network;
using testing::message_of;
using testing::toy_data;
using testing::train_options;

DatasetPtr unlabelled(int64_t samples) {
  at::manual_seed(11);
  return tensor_dataset({at::randn({samples, 8})}, {}, "unlabelled");
}

Model other_linear_network() {
  return testing::parse_filled(R"(
input x : f32[batch,8]
parameter fc.weight : f32[4,8]
parameter fc.bias : f32[4]
linear = aten::linear(x, fc.weight, fc.bias) : f32[batch,4] @ fc
return output = linear
)",
                               /*seed=*/9);
}

TEST(TrainFor, ATeacherWithoutLabels) {
  const Model teacher = linear_network();
  Model student = other_linear_network();
  const TrainOptions options = train_options(R"({
    "epochs": 60, "batch_size": 32, "optimizer": {"adam": {"lr": 0.05}}, "schedule": "cosine",
    "losses": [{"distill_logits": {"temperature": 2, "weight": 1}}]})");
  PassContext context(1);
  context.original = &teacher;
  const TrainResult result = train(student, options, {}, environment_of(unlabelled(256)), context);
  EXPECT_LT(result.loss, 1e-3);
  // Softmax does not see what all logits have in common.
  const auto centred = [](const Model& model) {
    const at::Tensor weight = model.tensor("fc.weight");
    return weight - weight.mean(0, true);
  };
  EXPECT_TRUE(at::allclose(centred(student), centred(teacher), 0.1, 0.1));
}

TEST(TrainFor, ATeacherWhoseOutputsAreKeptOnDisk) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "teacher-outputs";
  std::filesystem::remove_all(folder);
  const Model teacher = linear_network();
  const auto trained = [&](const std::string& cache, Precision precision = Precision::kFp32) {
    Model student = other_linear_network();
    TrainOptions options = train_options(R"({"epochs": 3, "batch_size": 16,
      "losses": [{"distill_logits": {"weight": 1}}]})");
    options.teacher_cache = cache;
    options.precision = precision;
    PassContext context(1);
    context.original = &teacher;
    train(student, options, {}, environment_of(unlabelled(64)), context);
    return model_digest(student);
  };
  const std::string plain = trained("");
  EXPECT_EQ(trained(folder.string()), plain);
  EXPECT_FALSE(std::filesystem::is_empty(folder));
  EXPECT_EQ(trained(folder.string()), plain);
  // A teacher under autocast says something else, and does not answer for this one.
  std::filesystem::remove_all(folder);
  trained(folder.string(), Precision::kBf16);
  EXPECT_EQ(trained(folder.string()), plain);
}

TEST(TrainFor, TargetsThatAreNumbers) {
  at::manual_seed(12);
  const at::Tensor inputs = at::randn({256, 8}), truth = at::randn({4, 8});
  const DatasetPtr data = tensor_dataset({inputs}, inputs.matmul(truth.t()), "targets");
  Model model = linear_network();
  const TrainOptions options = train_options(R"({
    "epochs": 40, "batch_size": 32, "optimizer": {"adam": {"lr": 0.05}}, "schedule": "cosine",
    "losses": ["mean_squared_error"], "validation": "same", "metrics": ["mse", "psnr"]})");
  PassContext context(1);
  const TrainResult result = train(model, options, {}, environment_of(data), context);
  EXPECT_TRUE(at::allclose(model.tensor("fc.weight"), truth, 0.02, 0.02));
  EXPECT_NEAR(result.validation.at("psnr"), -10 * std::log10(result.validation.at("mse")), 1e-6);
}

TEST(TrainFor, TheNextToken) {
  // Every token is followed by the one after it: a table learns that to certainty.
  Model model = testing::parse_filled(R"(
input tokens : i64[batch,6]
parameter table.weight : f32[8,8]
embedding = aten::embedding(table.weight, tokens) : f32[batch,6,8] @ table
return output = embedding
)");
  const at::Tensor tokens =
      (at::arange(64).unsqueeze(1) + at::arange(6).unsqueeze(0)).remainder(8).to(at::kLong);
  const DatasetPtr data = tensor_dataset({tokens}, (tokens + 1).remainder(8), "counting");
  const TrainOptions options = train_options(R"({
    "epochs": 30, "batch_size": 16, "optimizer": {"adamw": {"lr": 0.1, "weight_decay": 0}},
    "validation": "same", "metrics": ["perplexity"]})");
  PassContext context(1);
  const TrainResult result = train(model, options, {}, environment_of(data), context);
  EXPECT_LT(result.validation.at("perplexity"), 1.1);
}

TEST(TrainRefuses, ATeacherThatDoesNotFit) {
  const Model teacher = testing::parse_filled(R"(
input x : f32[batch,8]
parameter fc.weight : f32[5,8]
linear = aten::linear(x, fc.weight, none) : f32[batch,5] @ fc
return output = linear
)");
  const auto refusal = [&](const std::string& losses) {
    return message_of([&] {
      Model student = linear_network();
      PassContext context(1);
      context.original = &teacher;
      train(student, train_options(R"({"batch_size": 16, "losses": [)" + losses + "]}"), {},
            environment_of(toy_data({8}, 64)), context);
    });
  };
  EXPECT_THAT(refusal(R"("distill_logits")"), HasSubstr("original"));
  EXPECT_THAT(refusal(R"({"feature_error": {"taps": ["fcc"]}})"), HasSubstr("fcc"));
}

}  // namespace
}  // namespace compress
