// Moments against sums over all elements, moves against closed forms.

#include "passes/tune/channel_moments.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <vector>

namespace compress {
namespace {

ChannelMoments moments_of(const at::Tensor& values) {
  ChannelMoments moments;
  moments.add(values);
  return moments;
}

RunningStatistics statistics(std::vector<double> mean, std::vector<double> variance) {
  return {at::tensor(mean).to(at::kFloat), at::tensor(variance).to(at::kFloat)};
}

ChannelMoments measured(std::vector<double> mean, std::vector<double> variance) {
  return {at::tensor(mean), at::tensor(variance), 1000};
}

TEST(ChannelMoments, PartsAddUpToTheWhole) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({30, 5, 4, 4}) * 3 + 100;
  ChannelMoments parts;
  for (const at::Tensor& part : x.split(7)) parts.add(part);
  const at::Tensor all = x.to(at::kDouble).transpose(0, 1).flatten(1);
  EXPECT_TRUE(at::allclose(parts.mean, all.mean(1), 1e-12));
  EXPECT_TRUE(at::allclose(parts.variance, all.var(1, false), 1e-10));
  EXPECT_TRUE(at::allclose(parts.unbiased_variance(), all.var(1, true), 1e-10));
  EXPECT_EQ(parts.count, 30 * 16);
}

TEST(ChannelMoments, TakeRowsWithoutPositions) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({50, 3});
  EXPECT_TRUE(at::allclose(moments_of(x).mean, x.to(at::kDouble).mean(0)));
}

TEST(MovedStatistics, StayWhereNothingHasChanged) {
  at::manual_seed(3);
  const ChannelMoments same = moments_of(at::randn({100, 4}));
  const RunningStatistics running{at::randn({4}), at::rand({4}) + 0.1};
  const RunningStatistics moved = moved_statistics(running, same, same);
  EXPECT_TRUE(at::equal(moved.mean, running.mean));
  EXPECT_TRUE(at::equal(moved.variance, running.variance));
}

// Whatever y -> a y + b does to the channel, it does to what was kept.
TEST(MovedStatistics, FollowALinearMap) {
  at::manual_seed(4);
  const at::Tensor calibration = at::randn({500, 2}, at::kDouble) * 2 + 1;
  const at::Tensor training = at::randn({500, 2}, at::kDouble) * 3 - 1;
  const ChannelMoments kept = moments_of(training);
  const auto map = [](const at::Tensor& y) { return y * 0.5 + 0.75; };
  int64_t far = -1;
  const RunningStatistics moved = moved_statistics(
      {kept.mean, kept.variance}, moments_of(calibration), moments_of(map(calibration)), &far);
  const ChannelMoments expected = moments_of(map(training));
  EXPECT_EQ(far, 0);
  EXPECT_TRUE(at::allclose(moved.mean, expected.mean));
  EXPECT_TRUE(at::allclose(moved.variance, expected.variance));
}

TEST(MovedStatistics, AreThoseOfTheDataWhereTheNetworkIsNoLongerAlike) {
  const RunningStatistics running = statistics({1, 1, 1, 1, 1}, {2, 2, 2, 2, 2});
  const ChannelMoments original = measured({0, 0, 0, 0, 0}, {1, 1, 1, 0, 1});
  // Fine, variance 17-fold, mean 4.1 deviations away, nothing to compare with, dead now.
  const ChannelMoments compressed = measured({0, 0, 4.1, 0, 3}, {4, 17, 1, 1, 0});
  int64_t far = 0;
  const RunningStatistics moved = moved_statistics(running, original, compressed, &far);
  EXPECT_EQ(far, 4);
  EXPECT_TRUE(at::allclose(moved.mean, at::tensor({2.f, 0.f, 4.1f, 0.f, 3.f})));
  const at::Tensor data = at::tensor({8.f, 17.f, 1.f, 1.f, 0.f});
  EXPECT_TRUE(at::allclose(moved.variance, data, 2e-3)) << "n / (n - 1) of 1000";
}

}  // namespace
}  // namespace compress
