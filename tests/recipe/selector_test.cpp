// Selectors match what they say and name what is near.

#include "compress/selector.h"

#include "compress/options.h"
#include "tests/recipe/test_passes.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Selector selector(const std::string& json) {
  Selector out;
  Problems problems;
  read_selector(parse_json(json), "/where", out, problems);
  problems.throw_if_any();
  return out;
}

const std::vector<SelectorTarget>& targets() {
  static const std::vector<SelectorTarget> list = {
      {"embed.weight", "embed", OperatorKind::kEmbedding, 1000, {"head.weight"}},
      {"layer1.0.conv1.weight", "layer1.0.conv1", OperatorKind::kConv, 144, {}},
      {"layer1.1.conv1.weight", "layer1.1.conv1", OperatorKind::kConv, 2304, {}},
      {"fc.weight", "fc", OperatorKind::kLinear, 640, {}}};
  return list;
}

std::vector<std::string> matched(const std::string& json) {
  std::vector<std::string> names;
  for (const SelectorTarget& target : targets()) {
    if (selector(json).matches(target)) names.push_back(target.module_path);
  }
  return names;
}

using Names = std::vector<std::string>;

TEST(Glob, MatchesWildcards) {
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("layer?.*.weight", "layer1.0.conv1.weight"));
  EXPECT_TRUE(matches_glob("layer[1-3]", "layer2"));
  EXPECT_FALSE(matches_glob("layer[!1-3]", "layer2"));
  EXPECT_TRUE(matches_glob("a*b*c", "a.b.b.c"));
  EXPECT_FALSE(matches_glob("a*b", "a.b.c"));
  EXPECT_FALSE(matches_glob("layer1", "layer10"));
}

TEST(Glob, TakesNoTimeOnManyStars) {
  std::string glob;
  for (int i = 0; i < 200; ++i) glob += "a*";
  EXPECT_FALSE(matches_glob(glob + "b", std::string(5000, 'a')));
}

TEST(Selector, MatchesNamesModulePathsAndAliases) {
  EXPECT_EQ(matched("\"*\""), (Names{"embed", "layer1.0.conv1", "layer1.1.conv1", "fc"}));
  EXPECT_EQ(matched("\"layer1.*\""), (Names{"layer1.0.conv1", "layer1.1.conv1"}));
  EXPECT_EQ(matched("\"fc\""), (Names{"fc"}));
  EXPECT_EQ(matched("\"head.weight\""), (Names{"embed"}));
  EXPECT_EQ(matched("[\"fc\", \"embed\"]"), (Names{"embed", "fc"}));
}

TEST(Selector, HoldsAllConditionsOfAnObject) {
  EXPECT_EQ(matched(R"({"kind": "conv", "min_elements": 1000})"), (Names{"layer1.1.conv1"}));
  EXPECT_EQ(matched(R"({"max_elements": 640, "not": {"kind": "conv"}})"), (Names{"fc"}));
  EXPECT_EQ(matched(R"({"not": ["fc", {"kind": ["conv", "embedding"]}]})"), Names{});
  EXPECT_EQ(matched(R"({"any": ["fc", {"kind": "conv", "max_elements": 200}]})"),
            (Names{"layer1.0.conv1", "fc"}));
  EXPECT_EQ(matched(R"({"all": [{"kind": "conv"}, "*.1.*"]})"), (Names{"layer1.1.conv1"}));
}

TEST(Selector, PrintsTheShortestFormThatReadsBack) {
  for (const char* text :
       {R"("*")", R"("fc")", R"(["a","b"])", R"({"kind":"conv"})", R"({"name":"a*","kind":"conv"})",
        R"({"not":"fc"})", R"({"min_elements":1,"max_elements":9})", R"(["a",{"kind":"linear"}])",
        R"([["a","b"],[{"kind":"conv"},"c"]])", R"({"any":["a","b"]})",
        R"({"max_elements":9,"any":["a",{"kind":"conv"}]})",
        R"({"not":["a","b"],"all":[{"kind":"conv"}]})"}) {
    EXPECT_EQ(selector(text).text(), text);
  }
  EXPECT_EQ(selector(R"({"name": ["a"]})").text(), R"("a")");
  EXPECT_EQ(selector(R"({"any": ["a", {"kind": "conv"}]})").text(), R"(["a",{"kind":"conv"}])");
}

TEST(Selector, RefusesWhatItDoesNotKnow) {
  const auto refusal = [](const std::string& json) {
    return testing::message_of([&] { selector(json); });
  };
  EXPECT_EQ(refusal(R"({"kinds": "conv"})"),
            "/where/kinds: unknown key `kinds` of a selector (did you mean `kind`?)");
  EXPECT_THAT(refusal(R"({"kind": "convolution"})"), HasSubstr("not one of conv, linear"));
  EXPECT_THAT(refusal("[]"), HasSubstr("an empty list selects nothing"));
  EXPECT_THAT(refusal("3"), HasSubstr("3 is not a selector"));
  EXPECT_THAT(refusal(R"({"name": "a[b"})"), HasSubstr("[ without a ]"));
  EXPECT_THAT(refusal(R"({"min_elements": -1})"), HasSubstr("-1 is less than 0"));
}

TEST(Selector, NamesTheNearestWhenNothingMatches) {
  const auto refusal = [](const std::string& json) {
    return testing::message_of([&] { selector(json).require_match(targets(), "/steps/0/where"); });
  };
  EXPECT_EQ(refusal("\"layr1.*\""),
            "/steps/0/where: \"layr1.*\" selects none of the model's 4 weights "
            "(did you mean `layer1.*`?)");
  EXPECT_THAT(refusal("\"layer1\""), HasSubstr("write `layer1.*` for all below it"));
  EXPECT_THAT(refusal("{\"kind\": \"norm\"}"), HasSubstr("of kind conv, embedding, linear"));
  EXPECT_EQ(refusal("\"fc\""), "nothing was thrown");
}

TEST(Selector, NamesGlobsThatMatchNothingBesideOthers) {
  EXPECT_THAT(selector(R"(["layer1.*", "fc"])").idle_globs(targets()), IsEmpty());
  EXPECT_THAT(selector(R"({"name": ["layr1.*", "fc"], "not": {"name": "nothing.like.it"}})")
                  .idle_globs(targets()),
              ElementsAre("`layr1.*` matches none of the model's 4 weights "
                          "(did you mean `layer1.*`?)",
                          "`nothing.like.it` matches none of the model's 4 weights"));
}

}  // namespace
}  // namespace compress
