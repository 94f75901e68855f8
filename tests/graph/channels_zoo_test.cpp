// The law of coupled channels on every architecture of the zoo.

#include "compress/graph/shapes.h"
#include "compress/zoo/zoo.h"
#include "tests/support/channels.h"

#include <gtest/gtest.h>

#include <cctype>
#include <iostream>

namespace compress::testing {
namespace {

class ZooChannels : public ::testing::TestWithParam<std::string> {};

// Images of 64 x 64 do for networks that average over all places.
Model build(const std::string& spec) {
  Model model = zoo::build(spec);
  Value* input = model.graph().inputs().front();
  if (input->type.sizes->back().size != 224) return model;
  for (size_t d = 2; d < 4; ++d) input->type.sizes->at(d) = Dim(64);
  propagate_shapes(model);
  return model;
}

void check(const std::string& spec, bool inexact) {
  const LawReport report = check_channel_law(build(spec), {.inexact = inexact});
  EXPECT_GT(report.exact_groups, 0);
  EXPECT_GT(report.moved, 1e-3) << "zeroing changed nothing: the test says nothing";
  std::cout << spec << ": " << report.groups << " groups, " << report.exact_groups
            << " exact, moved " << report.moved << ", error " << report.error
            << ", parameters kept " << report.kept_parameters << "\n";
}

TEST_P(ZooChannels, RemovingExactUnitsEqualsZeroingThem) { check(GetParam(), false); }

TEST_P(ZooChannels, RemovingAllUnitsEqualsZeroingThemWhereStatisticsSeeTheRest) {
  check(GetParam(), true);
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
