// Tests of passes/structured/choose_channels.

#include "passes/structured/choose_channels.h"

#include "tests/support/errors.h"
#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

// Two groups of 8 and of 4 channels.
constexpr const char* kTwoLayers = R"(
input x : f32[batch,2]
parameter a.weight : f32[8,2]
parameter b.weight : f32[4,8]
parameter c.weight : f32[2,4]
a = aten::linear(x, a.weight) : f32[batch,8] @ a
b = aten::linear(a, b.weight) : f32[batch,4] @ b
c = aten::linear(b, c.weight) : f32[batch,2] @ c
return y = c
)";

struct Fixture {
  Model model = parse_filled(kTwoLayers);
  ChannelGroups groups = analyse(model);
  ChannelScores scores = {{8, 7, 6, 5, 4, 3, 2, 1}, {0.5, 9, 9, 9}};
  ChannelOptions options;

  ChannelSet first(size_t count) const {
    return ChannelOrder(groups, scores, eligible_groups(model, groups, options), options)
        .first(count);
  }
  size_t size() const {
    return ChannelOrder(groups, scores, eligible_groups(model, groups, options), options).size();
  }
  std::vector<int64_t> kept(const ChannelSet& set, const char* name, int64_t dim) const {
    return groups.kept(set, model.graph().find(name), dim);
  }
};

using ::testing::ElementsAre;

TEST(ChooseChannels, TakesTheLeastOfTheModelOrOfEachLayer) {
  Fixture all;
  const ChannelSet of_model = all.first(3);
  EXPECT_THAT(all.kept(of_model, "a.weight", 0), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(all.kept(of_model, "b.weight", 0), ElementsAre(1, 2, 3));
  all.options.scope = ChannelScope::kLayer;
  const ChannelSet of_layers = all.first(6);  // half of each
  EXPECT_THAT(all.kept(of_layers, "a.weight", 0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(all.kept(of_layers, "b.weight", 0).size(), 2u);
}

TEST(ChooseChannels, StopsAtTheLargestShare) {
  Fixture limited;
  limited.options.most = 0.5;
  EXPECT_EQ(limited.size(), 6u);
  limited.options.most = 1;
  EXPECT_EQ(limited.size(), 12u);
  const ChannelSet set = limited.first(12);
  EXPECT_EQ(limited.kept(set, "a.weight", 0).size(), 1u) << "something always stays";
  EXPECT_EQ(limited.kept(set, "b.weight", 0).size(), 1u);
}

TEST(ChooseChannels, LeavesMultiples) {
  Fixture even;
  even.options.round_to = 4;
  EXPECT_EQ(even.kept(even.first(4), "a.weight", 0).size(), 8u);  // three of eight may not go alone
  EXPECT_EQ(even.kept(even.first(5), "a.weight", 0).size(), 4u);
}

TEST(ChooseChannels, SelectsByTheLayersThatMakeThem) {
  Fixture one;
  one.options.where = Selector::name("b.weight");
  EXPECT_THAT(eligible_groups(one.model, one.groups, one.options), ElementsAre(false, true));
}

TEST(ChooseChannels, SaysWhyNothingCanGo) {
  Fixture none;
  none.options.where = Selector::name("c.weight");
  const std::string message =
      message_of([&] { require_eligible_groups(none.model, none.groups, none.options); });
  EXPECT_THAT(message, HasSubstr("no channel of the selected layers can go"));
  EXPECT_THAT(message, HasSubstr("c.weight: "));
}

TEST(ChooseChannels, TakesTheFewestThatMeetTheBudget) {
  Fixture fixture;
  const ChannelOrder order(fixture.groups, fixture.scores, {true, true}, fixture.options);
  CostMeter meter;
  meter.cost = [&](const ChannelSet& set) {
    return static_cast<double>(fixture.kept(set, "a.weight", 0).size());
  };
  meter.full = 8;
  meter.unit = "channels";
  for (const int64_t target : {8, 7, 3, 1}) {
    meter.target = static_cast<double>(target);
    const ChannelSet set = choose_channels(order, meter);
    EXPECT_EQ(fixture.kept(set, "a.weight", 0).size(), static_cast<size_t>(target));
  }
  meter.target = meter.budget = 0.5;
  EXPECT_THAT(
      message_of([&] { choose_channels(order, meter); }),
      HasSubstr("0.5 channels cannot be reached: with all channels gone that may go, 1 are"));
}

}  // namespace
}  // namespace compress::testing
