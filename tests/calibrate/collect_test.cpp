// Statistics of one run equal those of the whole data.

#include "compress/calibrate/statistics.h"
#include "compress/error.h"
#include "compress/graph/text.h"
#include "compress/model.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <cmath>

namespace compress {
namespace {

using ::testing::HasSubstr;

Model model() {
  return parse_model(
      "input x : f32[batch,2]\n"
      "relu = aten::relu(x) : f32[batch,2]\n"
      "neg = aten::neg(relu) : f32[batch,2]\n"
      "return output = neg\n");
}

// Two batches of different sizes.
BatchSource batches() {
  return [](const std::function<void(const std::vector<at::Tensor>&)>& consume) {
    consume({at::tensor({1.f, -2.f, 3.f, 4.f}).view({2, 2})});
    consume({at::tensor({-5.f, 6.f}).view({1, 2})});
  };
}

std::string refusal(const Wishes& wishes, const BatchSource& source) {
  return testing::message_of([&] { collect_statistics(model(), wishes, source); });
}

TEST(CollectStatistics, AnswersAllWishesInOneRun) {
  const Wish range{"x"}, mean{"x", Statistic::kMean}, channel_mean{"relu", Statistic::kChannelMean},
      norms{"x", Statistic::kChannelNorms};
  int runs = 0;
  const BatchSource counted = [&](const auto& consume) {
    batches()([&](const std::vector<at::Tensor>& inputs) {
      ++runs;
      consume(inputs);
    });
  };
  const Statistics answers =
      collect_statistics(model(), {range, mean, channel_mean, norms, mean}, counted);
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(answers.size(), 4u);
  EXPECT_TRUE(at::equal(answers.at(range), at::tensor({-5.f, 6.f})));
  EXPECT_NEAR(answers.at(mean).item<double>(), 7.0 / 6, 1e-12);
  // relu: columns (1, 3, 0) and (0, 4, 6)
  EXPECT_TRUE(at::allclose(answers.at(channel_mean), at::tensor({4.0 / 3, 10.0 / 3}, at::kDouble)));
  EXPECT_TRUE(
      at::allclose(answers.at(norms), at::tensor({std::sqrt(35.0), std::sqrt(56.0)}, at::kDouble)));
}

TEST(CollectStatistics, CountsChannelsFromTheEndToo) {
  const Wish first{"x", Statistic::kChannelNorms, 1}, last{"x", Statistic::kChannelNorms, -1};
  const Statistics answers = collect_statistics(model(), {first, last}, batches());
  EXPECT_TRUE(at::equal(answers.at(first), answers.at(last)));
}

TEST(CollectStatistics, RefusesWhatItCannotAnswer) {
  EXPECT_THAT(refusal({{"y"}}, batches()), HasSubstr("y: the graph has no such tensor"));
  EXPECT_THAT(refusal({{"x"}}, {}), HasSubstr("there is no calibration data"));
  EXPECT_THAT(refusal({{"x"}}, [](const auto&) {}), HasSubstr("there is no calibration data"));
  EXPECT_THAT(refusal({{"x", Statistic::kChannelMean, 2}}, batches()),
              HasSubstr("x: a tensor of 2 dimensions has no channel 2"));
}

TEST(CollectStatistics, NamesAValueThatIsNotFinite) {
  EXPECT_THAT(refusal({{"relu"}},
                      [](const auto& consume) {
                        consume({at::full({1, 2}, INFINITY)});
                      }),
              HasSubstr("relu: NaN or infinite elements on calibration data"));
}

}  // namespace
}  // namespace compress
