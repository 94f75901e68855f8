// Recipes are refused with all their problems, or read.

#include "compress/recipe.h"

#include "tests/recipe/test_passes.h"
#include "tests/support/paths.h"

#include <gmock/gmock.h>

#include <fstream>

namespace compress {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;

Recipe recipe_in(const std::string& text) {
  static const PassRegistry registry = testing::test_passes();
  return read_recipe(parse_recipe_source(text, "r.json"), registry);
}

std::string recipe_refusal(const std::string& text) {
  return message_of([&] { recipe_in(text); });
}

TEST(Recipe, ReadsWhatItNames) {
  const Recipe recipe = recipe_in(R"({"lathe": 1, "name": "n", "seed": 7, "data": {"test": {}},
    "steps": [{"pass": "test.scale", "factor": 3}, {"pass": "test.liar"}],
    "evaluate": {"data": "test"}})");
  EXPECT_EQ(recipe.name, "n");
  EXPECT_EQ(recipe.seed, 7u);
  EXPECT_EQ(recipe.data.dump(), R"({"test":{}})");
  EXPECT_EQ(recipe.evaluate.dump(), R"({"data":"test"})");
  EXPECT_EQ(print_recipe_line(recipe), "test.scale{factor=3},test.liar");
}

TEST(Recipe, ReportsAllProblemsAtOnce) {
  EXPECT_EQ(recipe_refusal(R"({"lathe": 2, "sede": 1, "seed": -1, "data": [],
    "steps": [{"pass": "test.scal"}, {"pass": "test.scale", "times": 99, "factor": true},
              {"pas": "test.liar"}, 3, {"train": {"epochs": 5}}]})"),
            "10 problems\n"
            "  r.json: /sede: unknown key `sede` (did you mean `seed`?)\n"
            "  r.json: /lathe: 2 is not a version of the recipe format that this Lathe reads "
            "(it reads \"lathe\": 1)\n"
            "  r.json: /seed: -1 is not a whole number from 0\n"
            "  r.json: /data: [] is not an object\n"
            "  r.json: /steps/0/pass: there is no pass `test.scal` (did you mean `test.scale`?)\n"
            "  r.json: /steps/1/times: 99 is outside [0, 8]\n"
            "  r.json: /steps/1/factor: true is not a number\n"
            "  r.json: /steps/2: a step without `pass` (is `pas` meant to be `pass`?)\n"
            "  r.json: /steps/3: 3 is not a step (a step looks like {\"pass\": "
            "\"prune.magnitude\", \"sparsity\": 0.5})\n"
            "  r.json: /steps/4/train: these passes have no trainer among them");
}

TEST(Recipe, RefusesARecipeWithoutVersionOrSteps) {
  EXPECT_THAT(recipe_refusal("{}"),
              AllOf(HasSubstr("/lathe: the version of the recipe format is missing"),
                    HasSubstr("/steps: the list of steps is missing")));
  EXPECT_EQ(recipe_refusal(R"({"lathe": 1, "steps": []})"),
            "r.json: /steps: a recipe needs at least one step");
  EXPECT_EQ(recipe_refusal("[]"), "r.json: a recipe is an object, not []");
}

TEST(Recipe, PrintsCanonicallyAndStably) {
  const Recipe recipe =
      recipe_in(R"({"steps": [{"factor": 2.0, "pass": "test.scale"}], "lathe": 1})");
  const std::string text = print_recipe(recipe);
  EXPECT_EQ(print_recipe(recipe_in(text)), text);
  EXPECT_THAT(text, HasSubstr("\"factor\": 2,"));
  EXPECT_THAT(text, HasSubstr("\"where\": \"*\""));
}

TEST(Recipe, LoadsFilesAndLines) {
  const PassRegistry registry = testing::test_passes();
  const testing::ScratchDir scratch;
  std::ofstream(scratch / "r.json") << R"({"lathe": 1, "steps": [{"pass": "test.scale"}]})";
  const std::string file = (scratch / "r.json").string();
  EXPECT_EQ(print_recipe_line(load_recipe(file, registry, {"steps.0.factor=5"})),
            "test.scale{factor=5}");
  EXPECT_EQ(print_recipe_line(load_recipe("test.liar,test.scale{times=2}", registry)),
            "test.liar,test.scale{times=2}");
  EXPECT_EQ(load_recipe("test.liar", registry, {"seed=4"}).seed, 4u);
  EXPECT_THAT(message_of([&] { load_recipe("missing.json", registry); }),
              HasSubstr("missing.json: there is no such file"));
  EXPECT_THAT(message_of([&] { load_recipe(scratch.path().string(), registry); }),
              HasSubstr("is a folder, not a recipe"));
}

}  // namespace
}  // namespace compress
