// JSON is read strictly and its errors say where.

#include "compress/json.h"

#include "tests/recipe/test_passes.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace compress {
namespace {

using testing::message_of;

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(parse_json(R"({"b": 1, "a": 2})").dump(), R"({"b":1,"a":2})");
}

TEST(Json, SaysWhereTheTextBreaks) {
  EXPECT_THAT(message_of([] { parse_json("{\n  \"a\": 1,\n}", "r.json"); }),
              ::testing::AllOf(::testing::HasSubstr("r.json: line 3, column 1: not valid JSON"),
                               ::testing::HasSubstr("remove the comma in front")));
  EXPECT_THAT(message_of([] { parse_json("{} // done", "r.json"); }),
              ::testing::HasSubstr("JSON has no comments"));
  EXPECT_THAT(message_of([] { parse_json("{\"a\": ", "r.json"); }),
              ::testing::HasSubstr("the text ends too early"));
}

TEST(Json, RefusesAKeyThatComesTwice) {
  EXPECT_EQ(
      message_of([] { parse_json(R"({"steps": [{}, {"pass": "a", "pass": "b"}]})", "r.json"); }),
      "r.json: /steps/1/pass: `pass` comes twice (remove one of them)");
}

TEST(Json, TakesTheSameKeyInTwoObjects) {
  EXPECT_EQ(parse_json(R"([{"a": 1}, {"a": {"a": 2}}])").size(), 2u);
}

TEST(Json, RefusesWhatFollowsAZeroByte) {
  const std::string text("{}\0 x", 5);
  EXPECT_EQ(message_of([&] { parse_json(text, "r.json"); }),
            "r.json: line 1, column 3: not valid JSON: a zero byte");
}

TEST(Json, RefusesDeepNesting) {
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  EXPECT_THAT(message_of([&] { parse_json(deep); }), ::testing::HasSubstr("nested deeper than 64"));
  EXPECT_THAT(message_of([] { parse_json(std::string(1000000, '[')); }),
              ::testing::HasSubstr("nested deeper than 64"));
}

TEST(Json, RefusesNumbersThatNoDoubleHolds) {
  EXPECT_THAT(message_of([] { parse_json("[1e999]"); }), ::testing::HasSubstr("not valid JSON"));
}

TEST(Json, BriefNeverThrowsAndStaysShort) {
  EXPECT_EQ(brief(Json(0.5)), "0.5");
  EXPECT_EQ(brief(Json(std::vector<int>(100, 7))), "a list of 100");
  EXPECT_LT(brief(Json(std::string(1000, 'x'))).size(), 60u);
  EXPECT_NO_THROW(brief(Json(std::string("\xff"))));
}

TEST(Json, EscapesPointers) { EXPECT_EQ(join_pointer("/a", "b/c~d"), "/a/b~1c~0d"); }

}  // namespace
}  // namespace compress
