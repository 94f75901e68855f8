// Schedules against torch's schedulers, closed forms and hand-worked cases.

#include "compress/train/schedule.h"

#include "tests/support/errors.h"
#include "tests/train/golden_optimizers.h"

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::HasSubstr;

TEST(Schedule, GivesTheRatesOfTorchsSchedulers) {
  const Json golden = testing::golden_optimizers();
  const auto steps = golden["steps"].get<int64_t>();
  ASSERT_EQ(golden["schedules"].size(), 22u);
  for (const Json& one : golden["schedules"]) {
    SCOPED_TRACE(one["schedule"].dump());
    const Schedule schedule(testing::read_choice<ScheduleOptions>(one["schedule"]), steps,
                            golden["steps_per_epoch"].get<int64_t>());
    ASSERT_EQ(one["rates"].size(), static_cast<size_t>(steps));
    for (int64_t step = 0; step < steps; ++step) {
      const auto rate = one["rates"][static_cast<size_t>(step)].get<double>();
      // Torch computes some from the rate before: its rounding adds up where rates become small.
      EXPECT_NEAR(schedule.factor(step), rate, 1e-9 * rate + 1e-15) << "step " << step;
    }
  }
}

TEST(Schedule, EndsWhereItSaidAfterTheLastStep) {
  EXPECT_DOUBLE_EQ(Schedule(CosineSchedule{.final = 0.1}, 50, 10).factor(50), 0.1);
  EXPECT_DOUBLE_EQ(Schedule(CosineSchedule{.final = 0.1}, 50, 10).factor(25), 0.55);
  EXPECT_DOUBLE_EQ(Schedule(LinearSchedule{.final = 0.1}, 50, 10).factor(50), 0.1);
  EXPECT_DOUBLE_EQ(Schedule(LinearSchedule{.final = 0.1}, 50, 10).factor(1000), 0.1);
  EXPECT_DOUBLE_EQ(Schedule(CosineSchedule{.final = 0.1}, 50, 10).factor(1000), 0.1);
  const OneCycleSchedule one_cycle{.rise = 0.3, .start_divisor = 4, .final_divisor = 5};
  EXPECT_DOUBLE_EQ(Schedule(one_cycle, 50, 10).factor(0), 1.0 / 4);
  EXPECT_DOUBLE_EQ(Schedule(one_cycle, 50, 10).factor(14), 1);  // 0.3 * 50 - 1
  EXPECT_DOUBLE_EQ(Schedule(one_cycle, 50, 10).factor(49), 1.0 / 20);
  EXPECT_DOUBLE_EQ(Schedule(one_cycle, 50, 10).factor(50), 1.0 / 20);
}

TEST(Schedule, OfARiseOfOneStepBeginsAtTheTop) {  // where torch divides by 0
  EXPECT_DOUBLE_EQ(Schedule(OneCycleSchedule{.rise = 0.1}, 10, 10).factor(0), 1);
}

TEST(Schedule, OfOneStepIsDefined) {
  EXPECT_DOUBLE_EQ(Schedule(ConstantSchedule{}, 1, 1).factor(0), 1);
  EXPECT_DOUBLE_EQ(Schedule(CosineSchedule{}, 1, 1).factor(0), 1);
  EXPECT_DOUBLE_EQ(Schedule(LinearSchedule{}, 1, 1).factor(0), 1);
  EXPECT_DOUBLE_EQ(Schedule(OneCycleSchedule{.rise = 1}, 1, 1).factor(0), 1);
}

// In floating point 1.1 * 10 is more than 11.
TEST(Schedule, DropsAtTheStepThatAFractionOfAnEpochNames) {
  const Schedule schedule(MultiStepSchedule{.at = {1.1, 2.34}, .gamma = 0.5}, 40, 10);
  EXPECT_EQ(schedule.factor(10), 1);
  EXPECT_EQ(schedule.factor(11), 0.5);
  EXPECT_EQ(schedule.factor(23), 0.5);
  EXPECT_EQ(schedule.factor(24), 0.25);
}

TEST(Schedule, WarmsUpInFractionsOfAStepToo) {
  const Schedule schedule(ConstantSchedule{.warmup_epochs = 0.25}, 40, 10);  // 2.5 steps
  EXPECT_DOUBLE_EQ(schedule.factor(0), 0.4);
  EXPECT_DOUBLE_EQ(schedule.factor(1), 0.8);
  EXPECT_DOUBLE_EQ(schedule.factor(2), 1);
}

// What a wrong schedule in a recipe, or in C++, is told.
std::string refusal(const std::string& json) {
  return testing::message_of([&] { testing::read_choice<ScheduleOptions>(parse_json(json)); });
}

TEST(Schedule, RefusesOptionsThatMakeNoSense) {
  EXPECT_THAT(refusal(R"({"multi_step": {"at": [3, 1]}})"),
              HasSubstr("/multi_step/at/1: 1 does not come after 3 (the epochs must be in "
                        "ascending order)"));
  EXPECT_THAT(refusal(R"({"multi_step": {"at": [1, 1]}})"), HasSubstr("does not come after"));
  EXPECT_THAT(refusal(R"({"multi_step": {"at": [-1, 1]}})"), HasSubstr("-1 is less than 0"));
  EXPECT_THAT(refusal(R"({"step": {"every": 0}})"), HasSubstr("0 is less than 1"));
  EXPECT_THAT(refusal(R"({"cosine": {"final": 1.5}})"), HasSubstr("1.5 is outside [0, 1]"));
  EXPECT_THAT(refusal(R"({"constant": {"warmup_epochs": -1}})"), HasSubstr("-1 is less than 0"));
  EXPECT_THAT(refusal(R"({"one_cycle": {"start_divisor": 0}})"), HasSubstr("0 is less than 1"));
  EXPECT_EQ(refusal(R"({"multi_step": {"at": []}})"), "nothing was thrown");
  EXPECT_THROW(Schedule(MultiStepSchedule{.at = {3, 1}}, 10, 1), Error);
  EXPECT_THROW(Schedule(StepSchedule{.every = 0}, 10, 1), Error);
}

}  // namespace
}  // namespace compress
