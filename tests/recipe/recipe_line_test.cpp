// A recipe and its line of text are twins.

#include "compress/recipe.h"
#include "tests/recipe/test_passes.h"

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::HasSubstr;
using testing::message_of;

std::string steps_of(const std::string& line) { return parse_recipe_line(line)["steps"].dump(); }

TEST(RecipeLine, ReadsPassesWithValuesOfEveryKind) {
  EXPECT_EQ(steps_of("a.b"), R"([{"pass":"a.b"}])");
  EXPECT_EQ(steps_of(" a.b { x = 1 , y = c* } , c.d{}"),
            R"([{"pass":"a.b","x":1,"y":"c*"},{"pass":"c.d"}])");
  EXPECT_EQ(steps_of(R"(a.b{i=-2,f=1e-3,t=true,n=null,s="a, b",l=[1,x,[]],o={k=v,"e e"={}}})"),
            R"([{"pass":"a.b","i":-2,"f":0.001,"t":true,"n":null,"s":"a, b","l":[1,"x",[]],)"
            R"("o":{"k":"v","e e":{}}}])");
  EXPECT_EQ(steps_of("a.b{g=group:128}"), R"([{"pass":"a.b","g":"group:128"}])");
}

TEST(RecipeLine, SaysAtWhichColumnItBreaks) {
  EXPECT_THAT(message_of([] { steps_of("a.b{x}"); }),
              HasSubstr("\"a.b{x}\", column 6: `}` in the place of `=` after `x`"));
  EXPECT_THAT(message_of([] { steps_of("a.b{x=1"); }),
              HasSubstr("the end in the place of `,` or `}`"));
  EXPECT_THAT(message_of([] { steps_of("a.b,"); }), HasSubstr("the end in the place of the name"));
  EXPECT_THAT(message_of([] { steps_of("a.b{x=1,}"); }), HasSubstr("nothing between `,` and `}`"));
  EXPECT_THAT(message_of([] { steps_of("a.b{x=1,x=2}"); }), HasSubstr("`x` comes twice"));
  EXPECT_THAT(message_of([] { steps_of("a.b{x=\"1}"); }), HasSubstr("closing quote"));
  EXPECT_THAT(message_of([] { steps_of("a.b c.d"); }), HasSubstr("not a comma or the end"));
  EXPECT_THAT(message_of([] { steps_of(std::string("a.b{x=") + std::string(100000, '[')); }),
              HasSubstr("nested too deep"));
}

TEST(RecipeLine, PrintsWhatReadsBackTheSame) {
  const PassRegistry registry = testing::test_passes();
  for (const char* line :
       {"test.liar", "test.scale,test.liar", "test.scale{factor=0.1,scope=model}",
        "test.scale{label=\"a, b\"}", "test.scale{label=\"1\"}", "test.scale{label=\"true\"}",
        "test.scale{granularity=group:8,numbers=[1,2],where={kind=[conv,linear],not=fc*}}"}) {
    const Recipe recipe = read_recipe({{}, parse_recipe_line(line), {}}, registry);
    EXPECT_EQ(print_recipe_line(recipe), line);
  }
}

TEST(RecipeLine, LeavesDefaultsOut) {
  const PassRegistry registry = testing::test_passes();
  const Recipe recipe =
      read_recipe({{}, parse_recipe_line("test.scale{factor=2.0,times=1}"), {}}, registry);
  EXPECT_EQ(print_recipe_line(recipe), "test.scale");
}

}  // namespace
}  // namespace compress
