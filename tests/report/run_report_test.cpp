// A report says what was measured, and what did not pay.

#include "compress/report/run_report.h"

#include "compress/budget/latency.h"
#include "compress/error.h"
#include "compress/graph/text.h"
#include "tests/support/models.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <thread>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RunReport example() {
  RunReport report;
  report.recipe_name = "half & half";
  report.recipe = {{"lathe", 1}};
  report.data = "cifar10:test";
  report.samples = 10000;
  report.threads = 1;
  report.before.metrics = {{"top1", 91.73}, {"loss", 0.5}};
  report.after.metrics = {{"top1", 91.5}, {"loss", 0.25}};
  report.before.cost.parameters = report.after.cost.parameters = 1000;
  report.before.cost.nonzeros = 1000;
  report.after.cost.nonzeros = 400;
  report.before.cost.bits_per_weight = 32;
  report.after.cost.bits_per_weight = 8;
  report.before.file_bytes = 4000;
  report.after.file_bytes = 1000;
  report.before.latency = Latency{2.0, 1.0, 3.0, 7};
  report.after.latency = Latency{1.0, 0.5, 2.0, 7};
  return report;
}

TEST(RunReport, PutsBeforeAndAfterSideBySide) {
  const std::string table = report_table(example());
  EXPECT_THAT(table, ::testing::ContainsRegex("top-1 accuracy, %  +91.73  +91.50  +-0.23\n"));
  EXPECT_THAT(table, ::testing::ContainsRegex("cross-entropy, nats  +0.5000  +0.2500  +-0.2500\n"));
  EXPECT_THAT(table, ::testing::ContainsRegex("non-zeros  +1,000  +400  +2.50 x\n"));
  EXPECT_THAT(table, ::testing::ContainsRegex("bytes on disk  +4,000  +1,000  +4.00 x\n"));
  EXPECT_THAT(table, ::testing::ContainsRegex("latency, batch 1, ms  +2.000  +1.000  +2.00 x\n"));
  EXPECT_THAT(table, HasSubstr("measured on 10,000 samples of cifar10:test; 1 thread\n"));
  EXPECT_THAT(table, Not(HasSubstr("note:")));
}

TEST(RunReport, SaysWhatDidNotPay) {
  RunReport report = example();
  report.after.file_bytes = 4001;
  report.after.latency = Latency{3.0, 1.0, 3.0, 7};
  EXPECT_THAT(report_remarks(report),
              ::testing::ElementsAre(HasSubstr("the file is not smaller: a zero is stored"),
                                     "the model is slower than before"));
}

TEST(RunReport, SaysWhyFewerMultiplicationsAreNotFaster) {
  RunReport report = example();
  report.after.latency = report.before.latency;
  EXPECT_THAT(report_remarks(report),
              ::testing::ElementsAre(HasSubstr("zeros and packed weights")));
  report.before.cost.macs = 100;
  report.after.cost.macs = 50;
  EXPECT_THAT(report_remarks(report),
              ::testing::ElementsAre(HasSubstr("although it multiplies less")));
}

TEST(RunReport, GivesTheSameFiguresAsJson) {
  const Json json = report_json(example());
  EXPECT_EQ(json["after"]["cost"]["nonzeros"], 400);
  EXPECT_EQ(json["before"]["metrics"]["top1"], 91.73);
  EXPECT_EQ(json["after"]["latency"]["runs"], 7);
  EXPECT_EQ(json["data"]["samples"], 10000);
}

TEST(RunReport, EscapesNamesInThePage) {
  EXPECT_THAT(report_html(example()), HasSubstr("<h1>half &amp; half</h1>"));
}

// Writes its name and sleeps.
std::function<void()> nap(std::string& order, char name, int milliseconds) {
  return [&order, name, milliseconds] {
    order += name;
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  };
}

TEST(Latency, RunsInTurnsAndTellsOneFromTheOther) {
  std::string order;
  const auto found = time_in_turns({nap(order, 'a', 1), nap(order, 'b', 6)},
                                   {.seconds = 0.02, .least_runs = 5, .turn_ms = 0});
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(order.substr(0, 6), "ababab");
  EXPECT_EQ(found[0].runs, found[1].runs);
  EXPECT_GE(found[0].runs, 5);
  for (const Latency& latency : found) {
    EXPECT_LE(latency.low_ms, latency.median_ms);
    EXPECT_LE(latency.median_ms, latency.high_ms);
  }
  EXPECT_GE(found[0].low_ms, 1.0);
  EXPECT_GE(found[1].low_ms, 6.0);
}

TEST(Latency, RepeatsAFastRunWithinItsTurn) {
  std::string order;
  const auto found = time_in_turns({nap(order, 'a', 1), nap(order, 'b', 9)},
                                   {.seconds = 0.02, .least_runs = 5, .turn_ms = 4});
  EXPECT_EQ(order.substr(0, 2), "aa");
  EXPECT_EQ(order.find("bb"), order.npos);
  EXPECT_GE(found[1].runs, 5);
  EXPECT_GT(found[0].runs, found[1].runs);
}

TEST(Latency, RefusesABareSetOfTensors) {
  const Model model = parse_filled("w : f32[2,2]");
  EXPECT_THROW(measure_latency({&model}), Error);
}

}  // namespace
}  // namespace compress::testing
