// Contrastive distillation equals the script's estimator and draws as it says.

#include "compress/train/contrastive.h"

#include "compress/error.h"
#include "tests/train/golden.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

using testing::distance;
using testing::distillation_golden;
using testing::golden_tensor;
using ::testing::HasSubstr;

ContrastiveMemory small(uint64_t seed, int64_t negatives, int64_t samples = 9) {
  return ContrastiveMemory({4, negatives, 0.07, 0.5}, 3, 5, samples, seed, at::kCPU);
}

void fill(const at::Tensor& tensor, const nlohmann::json& packed) {
  const at::NoGradGuard no_grad;
  at::Tensor(tensor).copy_(golden_tensor(packed));
}

TEST(ContrastiveMemory, EqualsTheScriptOverTwoSteps) {
  const nlohmann::json& golden = distillation_golden().at("contrastive");
  ContrastiveMemory memory({4, 3, golden.at("temperature"), golden.at("momentum")}, 3, 5, 7, 1,
                           at::kCPU);
  const std::vector<std::string> embeddings = {"student.weight", "student.bias", "teacher.weight",
                                               "teacher.bias"};
  const auto parameters = memory.parameters(), buffers = memory.buffers();
  for (size_t i = 0; i < 4; ++i) fill(parameters.at(embeddings[i]), golden.at("embeddings")[i]);
  fill(buffers.at("student_bank"), golden.at("banks")[0]);
  fill(buffers.at("teacher_bank"), golden.at("banks")[1]);

  for (const nlohmann::json& step : golden.at("steps")) {
    const at::Tensor student =
        golden_tensor(step.at("student")).to(at::kFloat).set_requires_grad(true);
    const at::Tensor teacher = golden_tensor(step.at("teacher")).to(at::kFloat);
    const at::Tensor loss =
        memory.step_with(student, teacher, golden_tensor(step.at("candidates")));
    loss.backward();
    // Float against double: exp(1 / 0.07) = 1.6e6 enlarges the cosines' rounding 14-fold.
    EXPECT_NEAR(loss.item<double>(), step.at("value").get<double>(), 1e-5);
    EXPECT_LT(distance(student.grad(), golden_tensor(step.at("gradient"))), 1e-5);
    for (size_t i = 0; i < 4; ++i) {
      at::Tensor& grad = parameters.at(embeddings[i]).mutable_grad();
      EXPECT_LT(distance(grad, golden_tensor(step.at("weight_gradients")[i])), 1e-5)
          << embeddings[i];
      grad.reset();
    }
  }
  EXPECT_LT(distance(buffers.at("student_bank"), golden_tensor(golden.at("final_banks")[0])), 1e-6);
  EXPECT_LT(distance(buffers.at("teacher_bank"), golden_tensor(golden.at("final_banks")[1])), 1e-6);
  for (int64_t side = 0; side < 2; ++side) {
    const double expected = golden.at("normalizers")[side].get<double>();
    EXPECT_NEAR(buffers.at("normalizers")[side].item<double>(), expected, 1e-5 * expected);
  }
  EXPECT_EQ(buffers.at("steps").item<int64_t>(), 2);
}

TEST(ContrastiveMemory, DrawsEveryOtherSampleAndNeverItself) {
  const ContrastiveMemory memory = small(1, 4000);
  const at::Tensor candidates = memory.draw({4, 0, 8});
  ASSERT_EQ(candidates.sizes(), (std::vector<int64_t>{3, 4001}));
  for (int64_t row = 0; row < 3; ++row) {
    const int64_t self = candidates.index({row, 0}).item<int64_t>();
    EXPECT_EQ(self, (std::vector<int64_t>{4, 0, 8})[row]);
    const at::Tensor counts = at::bincount(candidates[row].slice(0, 1), {}, 9);
    EXPECT_EQ(counts[self].item<int64_t>(), 0);
    // 4000 draws from 8: 500 each, standard deviation 21.
    for (int64_t other = 0; other < 9; ++other) {
      EXPECT_NEAR(counts[other].item<double>(), other == self ? 0 : 500, 110);
    }
  }
}

TEST(ContrastiveMemory, DrawsDependOnSeedAndStepOnly) {
  ContrastiveMemory a = small(1, 50), b = small(1, 50), c = small(2, 50);
  at::manual_seed(3);
  const at::Tensor first = a.draw({0, 1});
  at::manual_seed(4);
  EXPECT_TRUE(first.equal(b.draw({0, 1})));
  EXPECT_FALSE(first.equal(c.draw({0, 1})));
  a.step(at::ones({2, 3}), at::ones({2, 5}), {0, 1}, {});
  EXPECT_FALSE(first.equal(a.draw({0, 1})));
  // A checkpoint is parameters and buffers.
  for (const auto& [name, buffer] : a.buffers()) b.buffers().at(name).copy_(buffer);
  EXPECT_TRUE(a.draw({0, 1}).equal(b.draw({0, 1})));
}

TEST(ContrastiveMemory, DrawsFromOtherClassesOnceTheyAreKnown) {
  ContrastiveMemory memory = small(1, 200, 6);
  const at::Tensor labels = at::tensor({0, 1, 0, 1, 0, 1}, at::kLong);
  memory.step(at::ones({6, 3}), at::ones({6, 5}), {0, 1, 2, 3, 4, 5}, labels);
  const at::Tensor candidates = memory.draw({2});
  const at::Tensor negatives = candidates[0].slice(0, 1);
  EXPECT_TRUE(labels.index_select(0, negatives).eq(1).all().item<bool>());
  // All samples of one class: there is nobody else, so any other sample will do.
  ContrastiveMemory alike = small(1, 20, 3);
  alike.step(at::ones({3, 3}), at::ones({3, 5}), {0, 1, 2}, at::zeros({3}, at::kLong));
  EXPECT_TRUE(alike.draw({1})[0].slice(0, 1).ne(1).all().item<bool>());
}

TEST(ContrastiveMemory, LearnsToTellSamplesApart) {
  // Each sample's two features are unrelated; only the embeddings and memories can match them.
  ContrastiveMemory memory = small(1, 8);
  at::manual_seed(5);
  const at::Tensor student = at::randn({9, 3}), teacher = at::randn({9, 5});
  std::vector<int64_t> indices = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  double first = 0, last = 0;
  for (int step = 0; step < 60; ++step) {
    const at::Tensor loss = memory.step(student, teacher, indices, {});
    if (step == 1) first = loss.item<double>();
    last = loss.item<double>();
    loss.backward();
    const at::NoGradGuard no_grad;
    for (auto& [name, parameter] : memory.parameters()) {
      at::Tensor leaf = parameter;
      leaf.sub_(leaf.grad(), 0.05);
      leaf.mutable_grad().reset();
    }
  }
  EXPECT_LT(last, 0.8 * first);
}

TEST(ContrastiveMemory, RefusesASingleSample) {
  try {
    small(1, 4, 1);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("a training set of 1 samples"));
  }
}

}  // namespace
}  // namespace compress
