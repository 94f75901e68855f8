// One declaration gives reader, printer, help and schema.

#include "compress/options.h"

#include "tests/recipe/test_passes.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace compress {
namespace {

using ::testing::HasSubstr;
using testing::ScaleOptions;

// Reads options and gives all problems as text, one a line.
std::string read(const std::string& text, OptionsOf<ScaleOptions>& options) {
  Problems problems;
  read_options(parse_json(text), "/steps/0", options, problems);
  std::string lines;
  for (const Error& problem : problems.list()) lines += std::string(problem.what()) + "\n";
  return lines;
}

std::string read(const std::string& text) {
  OptionsOf<ScaleOptions> options;
  return read(text, options);
}

TEST(Options, ReadsEveryType) {
  OptionsOf<ScaleOptions> options;
  EXPECT_EQ(read(R"({"factor": 0.25, "times": 3, "secretly": true, "flavor": "sour",
                     "scope": "model", "granularity": "group:64", "numbers": [1, 2],
                     "label": "x", "where": "fc*"})",
                 options),
            "");
  EXPECT_EQ(options.value.factor, 0.25);
  EXPECT_EQ(options.value.times, 3);
  EXPECT_TRUE(options.value.secretly);
  EXPECT_EQ(options.value.flavor, testing::Flavor::kSour);
  EXPECT_EQ(options.value.scope, Scope::kModel);
  EXPECT_EQ(options.value.granularity, Granularity::group(64));
  EXPECT_EQ(options.value.numbers, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(options.value.label, "x");
  EXPECT_EQ(options.value.where, Selector::name("fc*"));
}

TEST(Options, ReportsAllProblemsWithPointersAndHints) {
  EXPECT_EQ(read(R"({"factr": 1, "times": 9, "scope": "modle", "numbers": [1, 0, "x"]})"),
            "/steps/0/factr: unknown option `factr` (did you mean `factor`?)\n"
            "/steps/0/times: 9 is outside [0, 8]\n"
            "/steps/0/scope: \"modle\" is not one of tensor, layer, model (did you mean `model`?)\n"
            "/steps/0/numbers/2: \"x\" is not a whole number\n");
  EXPECT_EQ(read(R"({"numbers": [1, 0]})"), "/steps/0/numbers/1: 0 is less than 1\n");
}

TEST(Options, RefusesWrongTypes) {
  EXPECT_EQ(read(R"({"factor": "0.5"})"),
            "/steps/0/factor: \"0.5\" is not a number (write 0.5 without quotes)\n");
  EXPECT_EQ(read(R"({"times": 1.5})"), "/steps/0/times: 1.5 is not a whole number\n");
  EXPECT_EQ(read(R"({"times": 18446744073709551615})"),
            "/steps/0/times: 18446744073709551615 does not fit 64 bits\n");
  EXPECT_EQ(read(R"({"secretly": 1})"), "/steps/0/secretly: 1 is neither true nor false\n");
  EXPECT_EQ(read(R"({"label": null})"), "/steps/0/label: null is not a string\n");
  EXPECT_THAT(read(R"({"granularity": "group:0"})"), HasSubstr("outside [1, 1e9]"));
  EXPECT_THAT(read(R"({"granularity": "row"})"), HasSubstr("tensor, channel or group:N"));
  EXPECT_EQ(read("[]"), "/steps/0: [] is not an object of options\n");
}

TEST(Options, ChecksRulesBetweenOptionsOnceEachOptionIsRight) {
  EXPECT_EQ(read(R"({"secretly": true, "times": 0})"),
            "/steps/0/times: 0 leaves nothing to be secret about\n");
}

TEST(Options, WritesWhatItReads) {
  OptionsOf<ScaleOptions> options, again, defaults;
  read(R"({"factor": 0.1, "granularity": {"group": 32}, "numbers": [3],
           "where": {"kind": ["conv"], "not": "a*"}})",
       options);
  const Json written = write_options(options, defaults);
  EXPECT_EQ(read(written.dump(), again), "");
  EXPECT_EQ(write_options(again, defaults).dump(), written.dump());
  EXPECT_EQ(write_options(options, defaults, WriteOptions::kChanged).dump(),
            R"({"factor":0.1,"granularity":"group:32","numbers":[3],)"
            R"("where":{"kind":"conv","not":"a*"}})");
}

TEST(Options, TellsTypeRangeAndDefault) {
  const OptionsOf<ScaleOptions> defaults;
  EXPECT_THAT(options_help(defaults),
              HasSubstr("  times=1   (whole number, 0 to 8)\n      How often."));
  EXPECT_THAT(options_table(defaults),
              HasSubstr("| `scope` | tensor \\| layer \\| model | `tensor` | A scope. |"));
  const Json schema = options_schema(defaults);
  EXPECT_EQ(schema["properties"]["times"].dump(),
            R"({"type":"integer","minimum":0,"maximum":8,"description":"How often.","default":1})");
  EXPECT_EQ(schema["properties"]["numbers"]["items"]["minimum"], 1);
  EXPECT_EQ(schema["additionalProperties"], false);
}

TEST(Problems, ListsSeveralOneALine) {
  Problems problems;
  problems.add("/a", "is wrong");
  problems.add("/b", "is too", "do better");
  try {
    problems.throw_if_any("r.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "2 problems\n  r.json: /a: is wrong\n  r.json: /b: is too (do better)");
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace compress
