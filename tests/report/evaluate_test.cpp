// Metrics agree with counts by hand, and misfits are refused.

#include "compress/evaluate.h"

#include "compress/data/tensors.h"
#include "compress/error.h"
#include "compress/graph/text.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <cmath>

namespace compress::testing {
namespace {

// Gives its input back: the data holds the logits.
Model identity(const std::string& type) {
  return parse_model("input x : " + type + "\ny = aten::mul.Scalar(x, 1)\nreturn y = y\n");
}

DatasetPtr logits(const at::Tensor& values, const std::vector<int64_t>& labels) {
  return tensor_dataset({values}, at::tensor(labels, at::kLong), "logits");
}

TEST(Evaluate, CountsAsByHandWhateverTheBatchSize) {
  // Label 6 is the sixth highest of row 2; label 0 the highest of row 0; 2 the second of row 1.
  const at::Tensor values = at::tensor({7., 6., 5., 4., 3., 2., 1.,  //
                                        1., 9., 8., 0., 0., 0., 0.,  //
                                        7., 6., 5., 4., 3., 1., 2.})
                                .to(at::kFloat)
                                .view({3, 7});
  const DatasetPtr data = logits(values, {0, 2, 6});
  for (const int64_t batch : {1, 2, 3, 100}) {
    const auto found = evaluate(identity("f32[batch,7]"), data, {Metric::kTop1, Metric::kTop5},
                                {.batch_size = batch});
    EXPECT_DOUBLE_EQ(found[0], 100.0 / 3) << batch;
    EXPECT_DOUBLE_EQ(found[1], 200.0 / 3) << batch;
  }
}

TEST(Evaluate, LossIsTheMeanCrossEntropyAndPerplexityItsExponential) {
  // Logits log(1), log(3): probabilities 1/4, 3/4.
  const at::Tensor values =
      at::tensor({0.0, std::log(3.0), 0.0, std::log(3.0)}).to(at::kFloat).view({2, 2});
  const auto found = evaluate(identity("f32[batch,2]"), logits(values, {0, 1}),
                              {Metric::kLoss, Metric::kPerplexity});
  const double loss = -(std::log(0.25) + std::log(0.75)) / 2;
  EXPECT_NEAR(found[0], loss, 1e-6);
  EXPECT_NEAR(found[1], std::exp(loss), 1e-6);
}

TEST(Evaluate, CountsEveryTokenOfASequence) {
  const at::Tensor values = at::zeros({2, 3, 4});
  const DatasetPtr data = tensor_dataset({values}, at::zeros({2, 3}, at::kLong), "tokens");
  EXPECT_NEAR(evaluate(identity("f32[batch,3,4]"), data, {Metric::kPerplexity})[0], 4.0, 1e-5);
}

TEST(Evaluate, RunsAFixedBatchInItsOwnSize) {
  const DatasetPtr data = logits(at::eye(4), {0, 1, 2, 0});
  EXPECT_DOUBLE_EQ(evaluate(identity("f32[2,4]"), data, {Metric::kTop1})[0], 75.0);
  EXPECT_THAT(testing::message_of([&] { evaluate(identity("f32[3,4]"), data, {Metric::kTop1}); }),
              ::testing::HasSubstr("does not divide the 4 samples"));
}

TEST(Evaluate, ReportsProgressUpToTheLastSample) {
  std::vector<int64_t> seen;
  EvaluateOptions options{.batch_size = 2};
  options.on_progress = [&](int64_t done, int64_t total) {
    seen.push_back(done);
    EXPECT_EQ(total, 3);
  };
  evaluate(identity("f32[batch,3]"), logits(at::eye(3), {0, 1, 2}), {Metric::kTop1}, options);
  EXPECT_THAT(seen, ::testing::ElementsAre(2, 3));
}

TEST(Evaluate, RefusesWhatDoesNotFit) {
  using ::testing::HasSubstr;
  const auto refusal = [](const std::string& type, const DatasetPtr& data) {
    return testing::message_of([&] { evaluate(identity(type), data, {Metric::kTop1}); });
  };
  EXPECT_THAT(refusal("f32[batch,5]", logits(at::eye(3), {0, 1, 2})), HasSubstr("[batch, 5]"));
  EXPECT_THAT(refusal("f32[batch,3]", logits(at::eye(3), {0, 1, 3})),
              HasSubstr("logits: label 3 is outside the model's 3 classes"));
  EXPECT_THAT(refusal("f32[batch,3]", logits(at::full({1, 3}, NAN), {0})), HasSubstr("NaN"));
  EXPECT_THAT(refusal("f32[batch,3]", tensor_dataset({at::eye(3)}, {}, "bare")),
              HasSubstr("no labels"));
}

TEST(Metric, IsFoundByName) {
  EXPECT_EQ(parse_metric("perplexity"), Metric::kPerplexity);
  EXPECT_THAT(testing::message_of([] { parse_metric("top2"); }),
              ::testing::HasSubstr("top1, top5"));
}

}  // namespace
}  // namespace compress::testing
