// Removing channels: files, one after another, masks and codes, refusals.

#include "compress/graph/compact.h"

#include "compress/files.h"
#include "compress/graph/text.h"
#include "compress/weight.h"
#include "compress/zoo/zoo.h"
#include "tests/support/channels.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Columns are copied eight at once where there is room, and one by one at the end and where few
// stay.
TEST(Compact, CopiesTheRowsAndColumnsThatStay) {
  for (const double share : {0.1, 0.5, 0.95}) {
    Model model = parse_filled(R"(
      input x : f32[batch,5]
      parameter a.weight : f32[45,5]
      parameter b.weight : f32[3,45]
      a = aten::linear(x, a.weight)
      r = aten::relu(a)
      b = aten::linear(r, b.weight)
      return output = b
    )");
    const at::Tensor rows = model.tensor("a.weight").clone(),
                     columns = model.tensor("b.weight").clone();
    const ChannelGroups groups = analyse(model);
    const ChannelSet gone = choose_channels(groups, share, false, 7);
    const Value* reader = model.graph().find("b.weight");
    const at::Tensor stay = at::tensor(groups.kept(gone, reader, 1), at::kLong);
    ASSERT_LT(stay.numel(), 45);
    remove(model, groups, gone);
    EXPECT_TRUE(at::equal(model.tensor("a.weight"), rows.index_select(0, stay))) << share;
    EXPECT_TRUE(at::equal(model.tensor("b.weight"), columns.index_select(1, stay))) << share;
  }
}

// What a file holds that Python or anybody else reads.
TEST(Compact, GivesAModelThatIsSavedAndLoaded) {
  Model model = zoo::build("resnet20-cifar10");
  const ChannelGroups groups = analyse(model);
  remove(model, groups, choose_channels(groups, 0.5, false, 3));
  const std::vector<at::Tensor> inputs = random_inputs(model, 2, 4);
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> before = model.forward(inputs);
  const ScratchDir folder;
  for (const char* name : {"small.pt2", "small.safetensors"}) {
    save_model(model, (folder / name).string());
    const Model loaded = load_model((folder / name).string());
    EXPECT_LT(difference(loaded.forward(inputs), before), 1e-6) << name;
  }
}

TEST(Compact, OneAfterAnotherGivesWhatBothAtOnceGive) {
  Model at_once = zoo::build("resnet20-cifar10"), in_turn = zoo::build("resnet20-cifar10");
  const ChannelGroups groups = analyse(at_once), same = analyse(in_turn);
  const size_t count = groups.groups().size();
  ChannelSet both = groups.none(), first = same.none();
  for (size_t g = 0; g < count; ++g) {
    for (const size_t unit : {0U, 3U}) {
      groups.add(both, groups.groups()[g].units[unit]);
      if (g % 2 == 0) same.add(first, same.groups()[g].units[unit]);
    }
  }
  remove(at_once, groups, both);
  remove(in_turn, same, first);
  const ChannelGroups rest = analyse(in_turn);
  ASSERT_EQ(rest.groups().size(), count) << "the same groups are left";
  ChannelSet second = rest.none();
  for (size_t g = 0; g < count; ++g) {
    const size_t before = groups.groups()[g].units.size();
    EXPECT_EQ(rest.groups()[g].units.size(), g % 2 == 0 ? before - 2 : before);
    if (g % 2 == 0) continue;
    for (const size_t unit : {0U, 3U}) rest.add(second, rest.groups()[g].units[unit]);
  }
  remove(in_turn, rest, second);
  EXPECT_EQ(print(in_turn), print(at_once));
}

constexpr const char* kTwoLayers = R"(
  input x : f32[batch,8]
  parameter a.weight : f32[16,8]
  parameter a.bias : f32[16]
  parameter b.weight : f32[6,16]
  a = aten::linear(x, a.weight, a.bias)
  r = aten::gelu(a)
  b = aten::linear(r, b.weight)
  return output = b
)";

TEST(Compact, CutsMasksWithTheirWeights) {
  Model model = parse_filled(kTwoLayers);
  run_pass("prune.magnitude{sparsity=0.5}", model);
  check_channel_law(model.clone());
  const ChannelGroups groups = analyse(model);
  ASSERT_EQ(groups.groups().size(), 1);
  EXPECT_EQ(groups.groups()[0].units.size(), 16);
  remove(model, groups, choose_channels(groups, 0.5, false, 1));
  EXPECT_EQ(model.tensor("a.weight_mask").size(0), 8);
  EXPECT_EQ(weights(model).at(0).encoding(), "f32 mask");
}

TEST(Compact, CutsCodesAndScalesWithTheirWeights) {
  Model model = parse_filled(kTwoLayers);
  run_pass("quantize.weights{bits=8}", model);
  const LawReport report = check_channel_law(model.clone());
  EXPECT_EQ(report.exact_groups, 1);
  EXPECT_GT(report.moved, 1e-3);
}

TEST(Compact, NeverLeavesADimensionEmpty) {
  const Model model = parse_filled(R"(
    input x : f32[batch,4]
    parameter a : f32[3,4]
    parameter b : f32[2,3]
    l = aten::linear(x, a)
    o = aten::linear(l, b)
    return output = o
  )");
  const ChannelGroups groups = analyse(model);
  ChannelSet set = groups.none();
  std::vector<bool> added;
  for (const ChannelUnit& unit : groups.groups()[0].units) added.push_back(groups.add(set, unit));
  EXPECT_THAT(added, ElementsAre(true, true, false));
}

TEST(Compact, LeavesTheModelAloneWhenNothingGoes) {
  Model model = parse_filled(
      "input x : f32[batch,4]\nparameter a : f32[3,4]\n"
      "l = aten::linear(x, a)\nreturn output = l");
  const std::string before = print(model);
  const ChannelGroups groups = analyse(model);
  remove(model, groups, groups.none());
  EXPECT_EQ(print(model), before);
}

TEST(Compact, RefusesAnAnalysisOfAnotherGraph) {
  Model model = parse_filled(
      "input x : f32[batch,4]\nparameter a : f32[3,4]\n"
      "l = aten::linear(x, a)\nreturn output = l");
  const ChannelGroups groups = analyse(model);
  model.graph().set_updates({});
  EXPECT_THAT(message_of([&] { remove(model, groups, groups.none()); }),
              HasSubstr("has changed since its channels were analysed"));
}

}  // namespace
}  // namespace compress::testing
