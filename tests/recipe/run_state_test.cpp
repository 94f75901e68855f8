// A run goes on only with what it was begun with.

#include "compress/run_state.h"

#include "tests/recipe/test_passes.h"

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::HasSubstr;
using testing::message_of;

Recipe recipe_of(const std::string& line, uint64_t seed = 0) {
  static const PassRegistry registry = testing::test_passes();
  Recipe recipe = read_recipe({{}, parse_recipe_line(line), {}}, registry);
  recipe.seed = seed;
  return recipe;
}

StepResult result_of(size_t index) {
  StepResult result;
  result.index = index;
  result.pass = "test.scale";
  result.options = {{"factor", 2}};
  result.change = Change::kSome;
  result.counts = {{"scaled", 3}};
  result.measures = {{"rmse", 0.1}};
  result.messages = {"done"};
  result.seconds = 1.5;
  result.digest = "d" + std::to_string(index);
  return result;
}

TEST(RunState, SurvivesJson) {
  const RunState state = make_run_state(recipe_of("test.scale,test.liar"), "in", {result_of(0)});
  const Json json = run_state_json(state);
  EXPECT_EQ(run_state_json(read_run_state(json, "state.json")), json);
  EXPECT_EQ(state.model_digest(), "d0");
  EXPECT_THAT(message_of([] {
                read_run_state(Json{{"key", 1}}, "state.json");
              }),
              HasSubstr("state.json: not the state of a run"));
}

TEST(ResumeKey, DependsOnWhatTheStepsDependOn) {
  const std::string key = resume_key(recipe_of("test.scale,test.liar"), 1, "in");
  EXPECT_EQ(resume_key(recipe_of("test.scale{factor=2},test.scale"), 1, "in"), key);
  EXPECT_NE(resume_key(recipe_of("test.scale{factor=3},test.liar"), 1, "in"), key);
  EXPECT_NE(resume_key(recipe_of("test.scale,test.liar"), 2, "in"), key);
  EXPECT_NE(resume_key(recipe_of("test.scale,test.liar"), 1, "other"), key);
  EXPECT_NE(resume_key(recipe_of("test.scale,test.liar", 1), 1, "in"), key);
}

TEST(RequireResumable, SaysWhatHasChanged) {
  const RunState state = make_run_state(recipe_of("test.scale,test.liar"), "in", {result_of(0)});
  const auto refusal = [&](const char* line, const char* input, const char* checkpoint) {
    return message_of([&] { require_resumable(state, recipe_of(line), input, checkpoint); });
  };
  EXPECT_EQ(refusal("test.scale,test.noise", "in", "d0"), "nothing was thrown");
  EXPECT_THAT(refusal("test.scale,test.liar", "else", "d0"), HasSubstr("the input model is not"));
  EXPECT_THAT(refusal("test.scale{times=2}", "in", "d0"), HasSubstr("first 1 steps"));
  EXPECT_THAT(refusal("test.scale,test.liar", "in", "dx"),
              HasSubstr("the checkpoint is not the model after step 1"));
}

}  // namespace
}  // namespace compress
