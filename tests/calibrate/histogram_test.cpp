// Counts against a count by hand, and their independence of order and batches.

#include "compress/calibrate/histogram.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace compress {
namespace {

int64_t bin_of(const Histogram& histogram, double value) {
  return static_cast<int64_t>(std::floor(value / histogram.width())) + Histogram::kHalf;
}

TEST(Histogram, CountsEveryElementInItsBin) {
  Histogram histogram;
  histogram.add(at::tensor({-1.f, 0.f, 0.25f, 0.25f, 1.f}));
  EXPECT_EQ(histogram.total(), 5);
  EXPECT_EQ(histogram.low(), -1);
  EXPECT_EQ(histogram.high(), 1);
  EXPECT_EQ(histogram.counts().at(bin_of(histogram, 0.25)), 2);
  for (const double value : {-1.0, 0.0, 1.0}) {
    EXPECT_EQ(histogram.counts().at(bin_of(histogram, value)), 1) << value;
  }
}

TEST(Histogram, DoesNotDependOnOrderOrBatches) {
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const at::Tensor values = at::randn({5000}, generator) * at::logspace(-6, 2, 5000);
  Histogram whole, parts, backwards;
  whole.add(values);
  for (const at::Tensor& part : values.split(77)) parts.add(part);
  for (const at::Tensor& part : values.flip(0).split(1001)) backwards.add(part);
  for (const Histogram* other : {&parts, &backwards}) {
    EXPECT_EQ(other->width(), whole.width());
    EXPECT_EQ(other->counts(), whole.counts());
  }
  // A power of two, no wider than needed.
  EXPECT_EQ(std::exp2(std::log2(whole.width())), whole.width());
  const double reach = std::max(-whole.low(), whole.high());
  EXPECT_GT(reach, whole.width() * Histogram::kHalf / 2);
}

TEST(Histogram, GoesThroughATensor) {
  Histogram histogram;
  histogram.add(at::arange(-20, 100, at::kFloat));
  const Histogram back = Histogram::from_tensor(histogram.to_tensor());
  EXPECT_EQ(back.counts(), histogram.counts());
  EXPECT_EQ(back.width(), histogram.width());
  EXPECT_EQ(back.total(), 120);
  EXPECT_EQ(back.high(), 99);
}

TEST(Histogram, ZerosAloneAreCounted) {
  Histogram histogram;
  histogram.add(at::zeros({10}));
  histogram.add(at::full({2}, 3.0f));
  EXPECT_EQ(histogram.counts().at(Histogram::kHalf), 10);
  EXPECT_EQ(histogram.counts().at(bin_of(histogram, 3)), 2);
}

}  // namespace
}  // namespace compress
