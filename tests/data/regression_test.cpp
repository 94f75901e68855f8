// Targets of a regression: floating labels, and the metrics that compare with them.

#include "compress/data/loader.h"
#include "compress/data/tensors.h"
#include "compress/error.h"
#include "compress/evaluate.h"
#include "compress/graph/text.h"
#include "compress/io/safetensors.h"
#include "tests/support/errors.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

// Gives its input back, times a factor.
Model scaled(const std::string& type, const std::string& factor = "1") {
  return parse_model("input x : " + type + "\ny = aten::mul.Scalar(x, " + factor +
                     ")\nreturn y = y\n");
}

at::Tensor floats(const std::vector<double>& values, at::IntArrayRef sizes) {
  return at::tensor(values).to(at::kFloat).view(sizes);
}

TEST(Targets, KeepDtypeAndSizes) {
  const at::Tensor x = at::arange(12, at::kFloat).view({6, 2});
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kHalf}) {
    const at::Tensor y = (at::arange(18, at::kFloat) / 4 - 1).view({6, 3, 1}).to(dtype);
    const DatasetPtr data = tensor_dataset({x}, y, "pairs");
    EXPECT_TRUE(data->info().labeled);
    EXPECT_EQ(data->info().classes, 0);
    Loader loader(data, {.batch_size = 4, .shuffle = true, .seed = 3});
    while (const auto batch = loader.next()) {
      const at::Tensor rows = at::tensor(batch->indices, at::kLong);
      EXPECT_TRUE(batch->labels.equal(y.index_select(0, rows)));
      EXPECT_EQ(batch->labels.scalar_type(), dtype);
    }
  }
}

TEST(Targets, BelongToNormalisedImagesToo) {
  const testing::ScratchDir scratch;
  const at::Tensor x = at::arange(24, at::kByte).view({2, 3, 2, 2});
  const at::Tensor y = floats({0.5, -1.5}, {2, 1});
  save_safetensors(scratch / "d.safetensors", {{"inputs", x}, {"labels", y}, {"wide", x}});
  const auto data = tensor_file(scratch / "d.safetensors", {.normalize = normalization("none")});
  EXPECT_TRUE(data->info().labeled);
  const Batch batch = data->get({1, 0});
  EXPECT_TRUE(batch.labels.equal(y.flip(0)));
  EXPECT_TRUE(batch.inputs[0].equal(x.flip(0).to(at::kFloat).div(255.0)));
  EXPECT_THAT(batch.indices, ElementsAre(1, 0));
  EXPECT_THAT(message_of([&] {
                tensor_file(scratch / "d.safetensors",
                            {.labels = "wide", .normalize = normalization("none")});
              }),
              HasSubstr("one whole number each, or floats"));
}

TEST(EvaluateTargets, MeansOverAllElementsWhateverTheBatchSize) {
  // Errors 0.1, 0.2; 0.3, 0; 0.5, 0: squares 0.01 + 0.04 + 0.09 + 0.25 = 0.39 over six.
  const DatasetPtr data = tensor_dataset({floats({1.1, 2.2, 0.3, 4, 5, 6}, {3, 2})},
                                         floats({1, 2, 0, 4, 5.5, 6}, {3, 2}), "pairs");
  for (const int64_t batch : {1, 2, 3, 100}) {
    const auto found = evaluate(scaled("f32[batch,2]"), data, {Metric::kMse, Metric::kPsnr},
                                {.batch_size = batch});
    EXPECT_NEAR(found[0], 0.065, 1e-7) << batch;
    EXPECT_NEAR(found[1], 10 * std::log10(1 / 0.065), 1e-5) << batch;
  }
  // 8-bit pixels: 20 log10(255) = 48.1308 dB more.
  const auto bytes =
      evaluate(scaled("f32[batch,2]"), data, {Metric::kPsnr}, {.batch_size = 2, .peak = 255});
  EXPECT_NEAR(bytes[0], 10 * std::log10(1 / 0.065) + 48.1308, 1e-4);
}

TEST(EvaluateTargets, AgreesWithTorch) {
  const at::Tensor x = at::linspace(-3, 3, 600).view({100, 3, 2});
  const at::Tensor y = x.sin().to(at::kDouble);
  const auto found = evaluate(scaled("f32[batch,3,2]"), tensor_dataset({x}, y, "sine"),
                              {Metric::kMse}, {.batch_size = 7});
  EXPECT_NEAR(found[0], at::mse_loss(x.to(at::kDouble), y).item<double>(), 1e-12);
}

TEST(EvaluateTargets, AreTheInputWithoutLabels) {
  // Half of x is off by x / 2: a quarter of the mean square of 1, 2, 3, 4, that is 7.5 / 4.
  const DatasetPtr data = tensor_dataset({floats({1, 2, 3, 4}, {4, 1})}, {}, "bare");
  const auto found = evaluate(scaled("f32[batch,1]", "0.5"), data, {Metric::kMse, Metric::kPsnr});
  EXPECT_DOUBLE_EQ(found[0], 1.875);
  EXPECT_DOUBLE_EQ(found[1], -10 * std::log10(1.875));
  const auto equal = evaluate(scaled("f32[batch,1]"), data, {Metric::kMse, Metric::kPsnr});
  EXPECT_EQ(equal[0], 0.0);
  EXPECT_EQ(equal[1], std::numeric_limits<double>::infinity());
}

TEST(EvaluateTargets, RefusesWhatDoesNotFit) {
  const at::Tensor x = floats({1, 2, 3, 4, 5, 6}, {3, 2});
  const auto refusal = [&](const at::Tensor& labels, Metric metric) {
    const DatasetPtr data = tensor_dataset({x}, labels, "pairs");
    return message_of([&] { evaluate(scaled("f32[batch,2]"), data, {metric}); });
  };
  EXPECT_THAT(refusal(x, Metric::kTop1),
              HasSubstr("pairs: labels [3, 2] of dtype Float are targets, and top1 compares with "
                        "classes (the metrics of targets are mse and psnr)"));
  EXPECT_THAT(refusal(x, Metric::kPerplexity), HasSubstr("and perplexity compares with classes"));
  EXPECT_THAT(refusal(at::tensor({0, 1, 0}, at::kLong), Metric::kPsnr),
              HasSubstr("pairs: labels [3] of dtype Long are classes, and psnr compares with "
                        "targets"));
  EXPECT_THAT(refusal(at::ones({3}), Metric::kMse),
              HasSubstr("pairs: the model's output is [3, 2], the targets are [3]"));
  EXPECT_THAT(refusal(at::full({3, 2}, NAN), Metric::kMse),
              HasSubstr("the targets have elements that are NaN or infinite"));
  EXPECT_THAT(refusal({}, Metric::kTop5),
              HasSubstr("pairs has no labels to compare with (top5 needs classes; mse and psnr "));

  const DatasetPtr both = tensor_dataset({x, x}, {}, "two");
  const Model sum = parse_model(
      "input a : f32[batch,2]\ninput b : f32[batch,2]\ny = aten::add.Tensor(a, b)\nreturn y = "
      "y\n");
  EXPECT_THAT(message_of([&] { evaluate(sum, both, {Metric::kMse}); }),
              HasSubstr("two has no labels to compare with, and 2 inputs"));
  const Model infinite = scaled("f32[batch,2]", "1e300");
  const DatasetPtr bare = tensor_dataset({x}, {}, "bare");
  EXPECT_THAT(message_of([&] { evaluate(infinite, bare, {Metric::kMse}); }),
              HasSubstr("bare: the model's output has elements that are NaN or infinite"));
  const Model flat =
      parse_model("input x : f32[batch,2]\ny = aten::sum.dim_IntList(x, [1])\nreturn y = y\n");
  EXPECT_THAT(message_of([&] { evaluate(flat, bare, {Metric::kMse}); }),
              HasSubstr("the inputs, which are the targets, are [3, 2]"));
  for (const double peak : {0.0, -1.0, std::nan("")}) {
    EXPECT_THAT(message_of([&] {
                  evaluate(scaled("f32[batch,2]"), bare, {Metric::kPsnr}, {.peak = peak});
                }),
                HasSubstr("is not a peak"));
  }
}

TEST(TargetMetrics, ReadAndPrint) {
  EXPECT_EQ(parse_metric("psnr"), Metric::kPsnr);
  EXPECT_EQ(parse_metric("mse"), Metric::kMse);
  EXPECT_TRUE(higher_is_better(Metric::kPsnr));
  EXPECT_FALSE(higher_is_better(Metric::kMse));
  EXPECT_EQ(metric_text(Metric::kPsnr, 31.4159), "31.42");
  EXPECT_EQ(metric_text(Metric::kMse, 0.000123456), "0.0001235");
  EXPECT_EQ(metric_title(Metric::kPsnr), "PSNR, dB");
}

}  // namespace
}  // namespace compress
