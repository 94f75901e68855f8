// Includes, settings and variables are merged in order.

#include "compress/recipe.h"
#include "tests/recipe/test_passes.h"
#include "tests/support/paths.h"

#include <gmock/gmock.h>

#include <fstream>

namespace compress {
namespace {

using ::testing::HasSubstr;
using testing::message_of;

std::string with(const std::string& text, const std::vector<std::string>& settings) {
  return parse_recipe_source(text, "", settings).json.dump();
}

class RecipeFiles : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    std::ofstream(scratch_ / name) << text;
  }
  RecipeSource load(const std::string& name, const std::vector<std::string>& settings = {}) {
    return load_recipe_source(scratch_ / name, settings);
  }
  testing::ScratchDir scratch_;
};

TEST(RecipeSettings, ReplaceAndAddValues) {
  const std::string text = R"({"steps": [{"pass": "a", "x": 1}], "seed": 1})";
  EXPECT_EQ(with(text, {"steps.0.x=0.5", "seed=2"}),
            R"({"steps":[{"pass":"a","x":0.5}],"seed":2})");
  EXPECT_EQ(with(text, {"steps.0.y=[1, 2]"}),
            R"({"steps":[{"pass":"a","x":1,"y":[1,2]}],"seed":1})");
  EXPECT_EQ(with(text, {"steps.0.x=model"}), R"({"steps":[{"pass":"a","x":"model"}],"seed":1})");
  EXPECT_EQ(with(text, {"steps.0.x=a=b"}), R"({"steps":[{"pass":"a","x":"a=b"}],"seed":1})");
}

TEST(RecipeSettings, RefuseAPathThatLeadsNowhere) {
  const std::string text = R"({"steps": [{"pass": "a"}], "seed": 1, "variables": {"rate": 1}})";
  const auto refusal = [&](const std::string& setting) {
    return message_of([&] { with(text, {setting}); });
  };
  EXPECT_EQ(refusal("step.0.x=1"), "--set step.0.x: there is no `step` (did you mean `steps`?)");
  EXPECT_EQ(refusal("steps.1.x=1"),
            "--set steps.1.x: there is no element `1` (the list has elements 0 to 0)");
  EXPECT_EQ(refusal("seed.x=1"), "--set seed.x: 1 has no parts, so no `x`");
  EXPECT_EQ(refusal("variables.rat=1"),
            "--set variables.rat: there is no `rat` (did you mean `rate`?)");
  EXPECT_THAT(refusal("steps"), HasSubstr("a setting without `=`"));
}

TEST(RecipeVariables, BecomeValuesOrText) {
  EXPECT_EQ(with(R"({"variables": {"n": 4, "name": "x", "list": [1]},
                     "a": "${n}", "b": "group:${n}", "c": ["${list}"], "d": "${name}-$${n}"})",
                 {}),
            R"({"a":4,"b":"group:4","c":[[1]],"d":"x-${n}"})");
}

TEST(RecipeVariables, AreOverriddenBySettings) {
  EXPECT_EQ(with(R"({"variables": {"n": 4}, "a": "${n}"})", {"variables.n=8"}), R"({"a":8})");
}

TEST(RecipeVariables, RefuseUnknownNames) {
  EXPECT_EQ(message_of([] { with(R"({"variables": {"rate": 1}, "a": ["${rte}"]})", {}); }),
            "/a/0: there is no variable `rte` (did you mean `rate`?)");
  EXPECT_THAT(message_of([] { with(R"({"a": "${rate"})", {}); }),
              HasSubstr("has a ${ without a }"));
}

TEST_F(RecipeFiles, IncludeStepsFirstAndLetOwnKeysWin) {
  write("base.json", R"({"lathe": 1, "name": "base", "seed": 3, "data": {"a": 1, "b": 1},
                         "variables": {"n": 1}, "steps": [{"pass": "one", "x": "${n}"}]})");
  write("own.json", R"({"lathe": 1, "include": "base.json", "name": "own", "data": {"b": 2},
                        "variables": {"n": 2}, "steps": [{"pass": "two"}]})");
  const RecipeSource source = load("own.json");
  EXPECT_EQ(source.json["steps"].dump(), R"([{"pass":"one","x":2},{"pass":"two"}])");
  EXPECT_EQ(source.json["data"].dump(), R"({"a":1,"b":2})");
  EXPECT_EQ(source.json["name"], "own");
  EXPECT_EQ(source.json["seed"], 3);
  EXPECT_THAT(origin_of(source.origins, "/steps/0/x"), HasSubstr("base.json: /steps/0/x"));
  EXPECT_THAT(origin_of(source.origins, "/steps/1"), HasSubstr("own.json: /steps/0"));
  EXPECT_THAT(origin_of(source.origins, "/data/a"), HasSubstr("base.json: /data/a"));
  EXPECT_THAT(origin_of(source.origins, "/seed"), HasSubstr("base.json: /seed"));
  for (const char* own : {"/data/b", "/name", "/steps", "/evaluate", ""}) {
    EXPECT_EQ(origin_of(source.origins, own), own);
  }
}

TEST_F(RecipeFiles, IncludeSeveralInOrder) {
  write("a.json", R"({"steps": [{"pass": "a"}], "seed": 1})");
  write("b.json", R"({"include": "a.json", "steps": [{"pass": "b"}], "seed": 2})");
  write("own.json", R"({"include": ["b.json", "a.json"]})");
  const RecipeSource source = load("own.json");
  EXPECT_EQ(source.json["steps"].dump(), R"([{"pass":"a"},{"pass":"b"},{"pass":"a"}])");
  EXPECT_EQ(source.json["seed"], 1);
  for (const auto& [pointer, origin] :
       std::map<std::string, std::string>{{"/steps/0", "a.json: /steps/0"},
                                          {"/steps/1", "b.json: /steps/0"},
                                          {"/steps/2", "a.json: /steps/0"},
                                          {"/seed", "a.json: /seed"}}) {
    EXPECT_THAT(origin_of(source.origins, pointer), HasSubstr(origin)) << pointer;
  }
}

TEST_F(RecipeFiles, TellProblemsOfIncludedStepsByTheirOwnFile) {
  const PassRegistry registry = testing::test_passes();
  write("base.json", R"({"lathe": 1, "steps": [{"pass": "test.scale", "times": 99}]})");
  write("own.json", R"({"lathe": 1, "include": "base.json", "steps": [{"pass": "test.liar"}]})");
  EXPECT_THAT(message_of([&] { read_recipe(load("own.json"), registry); }),
              HasSubstr("base.json: /steps/0/times: 99 is outside [0, 8]"));
  write("base.json", R"({"lathe": 1, "seed": -1, "steps": [{"pass": "test.scale"}]})");
  write("own.json",
        R"({"lathe": 1, "include": "base.json", "steps": [{"pass": "test.scale", "times": 99}]})");
  const std::string problems = message_of([&] { read_recipe(load("own.json"), registry); });
  EXPECT_THAT(problems, HasSubstr("base.json: /seed: -1"));
  EXPECT_THAT(problems, HasSubstr("own.json: /steps/0/times: 99"));
}

TEST_F(RecipeFiles, RefuseCyclesAndMissingFiles) {
  write("a.json", R"({"include": "b.json"})");
  write("b.json", R"({"include": "a.json"})");
  EXPECT_THAT(message_of([&] { load("a.json"); }), HasSubstr("the file includes itself"));
  write("c.json", R"({"include": "missing.json"})");
  EXPECT_THAT(message_of([&] { load("c.json"); }),
              ::testing::AllOf(HasSubstr("c.json: /include"), HasSubstr("there is no such file")));
  write("d.json", R"({"include": 3})");
  EXPECT_THAT(message_of([&] { load("d.json"); }), HasSubstr("3 is not the name of a recipe file"));
}

TEST_F(RecipeFiles, RefuseAFileWithoutEnd) {
  write("a.json", R"({"include": "/dev/zero"})");
  EXPECT_THAT(message_of([&] { load("a.json"); }), HasSubstr("is larger than 16 MiB"));
}

TEST_F(RecipeFiles, RefuseADeepChain) {
  for (int i = 0; i < 12; ++i) {
    write(std::to_string(i) + ".json", R"({"include": ")" + std::to_string(i + 1) + R"(.json"})");
  }
  EXPECT_THAT(message_of([&] { load("0.json"); }), HasSubstr("nested deeper than 8"));
}

}  // namespace
}  // namespace compress
