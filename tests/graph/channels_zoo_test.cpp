// The law of coupled channels on every architecture of the zoo.

#include "compress/zoo/zoo.h"
#include "tests/support/channels.h"

#include <gtest/gtest.h>

#include <iostream>

namespace compress::testing {
namespace {

class ZooChannels : public ::testing::TestWithParam<std::string> {};

TEST_P(ZooChannels, RemovingExactUnitsEqualsZeroingThem) {
  const LawReport report = check_channel_law(zoo::build(GetParam()), 0.4, 1);
  EXPECT_GT(report.exact_groups, 0);
  EXPECT_GT(report.moved, 0) << "nothing was removed";
  RecordProperty("groups", static_cast<int>(report.groups));
  std::cout << GetParam() << ": " << report.groups << " groups, " << report.exact_groups
            << " exact, error " << report.error << ", parameters kept " << report.kept_parameters
            << "\n";
}

// One of each family, and those that differ in more than their size.
INSTANTIATE_TEST_SUITE_P(
    All, ZooChannels,
    ::testing::Values("resnet20-cifar10", "resnet20b-cifar10", "vgg11-cifar10", "vgg11-fc-cifar10",
                      "densenet40-cifar10", "wrn-16-4-cifar10", "lenet5", "lenet5-caffe",
                      "lenet-300-100", "resnet18", "resnet50", "mobilenet_v2", "nanogpt{layers=2}",
                      "gpt2{layers=2,width=96,vocabulary=100}",
                      "bert{layers=2,width=96,heads=4,hidden=160,vocabulary=100}",
                      "bert-classifier{layers=2,width=96,heads=4,hidden=160,vocabulary=100}",
                      "vit{layers=2,width=96,heads=4,hidden=160,image=64,classes=10}"),
    [](const auto& info) {
      std::string name = info.param;
      for (char& c : name) c = std::isalnum(c) ? c : '_';
      return name;
    });

}  // namespace
}  // namespace compress::testing
