// The manager runs steps, distrusts passes and says what went wrong.

#include "compress/graph/digest.h"
#include "compress/graph/text.h"
#include "compress/pass_manager.h"
#include "tests/recipe/test_passes.h"

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

constexpr const char* kLinear =
    "input x : f32[batch,2]\n"
    "parameter fc.weight : f32[2,2] = [[1, -4], [3, -2]]\n"
    "parameter head.weight : f32[2,2] = [[1, 0], [0, 1]]\n"
    "linear = aten::linear(x, fc.weight) : f32[batch,2] @ fc\n"
    "linear_1 = aten::linear(linear, head.weight) : f32[batch,2] @ head\n"
    "return output = linear_1\n";

Recipe recipe_of(const std::string& line) {
  static const PassRegistry registry = testing::test_passes();
  return read_recipe({{}, parse_recipe_line(line), {}}, registry);
}

RunResult run(const std::string& line, Model& model, RunOptions options = {}) {
  options.verify = true;
  return run_recipe(recipe_of(line), model, options);
}

std::string refusal(const std::string& line, RunOptions options = {}) {
  Model model = parse_model(kLinear);
  return message_of([&] { run(line, model, options); });
}

float first_weight(const Model& model) {
  return model.tensor("fc.weight").flatten()[0].item<float>();
}

TEST(PassManager, VerifiesAModelThatCameWithATensorNothingUses) {
  Model model = parse_model("buffer seen : i64[] = 3\n" + std::string(kLinear));
  EXPECT_EQ(run("test.scale{factor=3}", model).steps.size(), 1u);
}

TEST(PassManager, RunsStepsInOrderAndRecordsThem) {
  Model model = parse_model(kLinear);
  const RunResult result = run("test.scale{factor=3},test.scale{factor=0.5,where=fc}", model);
  EXPECT_FLOAT_EQ(first_weight(model), 1.5f);
  ASSERT_EQ(result.steps.size(), 2u);
  EXPECT_EQ(result.steps[0].counts.at("scaled"), 2);
  EXPECT_EQ(result.steps[1].counts.at("scaled"), 1);
  EXPECT_EQ(result.steps[1].measures.at("factor"), 0.5);
  EXPECT_EQ(result.steps[1].options["where"], "fc");
  EXPECT_THAT(result.steps[1].messages, ElementsAre("scaled by 0.5"));
  EXPECT_EQ(result.steps[0].change, Change::kSome);
  EXPECT_EQ(result.output_digest, model_digest(model));
  EXPECT_NE(result.input_digest, result.output_digest);
}

TEST(PassManager, SaysWhichGlobBesideOthersMatchesNothing) {
  Model model = parse_model(kLinear);
  const RunResult result = run("test.scale{factor=3,where=[fc,fd.*]}", model);
  EXPECT_THAT(result.steps[0].messages,
              Contains(HasSubstr("`where`: `fd.*` matches none of the model's 2 weights "
                                 "(did you mean `fc.*`?)")));
}

TEST(PassManager, FindsAChangeThatAPassDenies) {
  EXPECT_THAT(refusal("test.scale{secretly=true}"),
              HasSubstr("test.scale says that it changed nothing, but the model has changed"));
}

TEST(PassManager, FindsAClaimedChangeThatIsNone) {
  EXPECT_THAT(refusal("test.scale{factor=1}"),
              HasSubstr("test.scale says that it changed the model, but nothing has changed"));
}

TEST(PassManager, FindsBrokenPromises) {
  EXPECT_THAT(refusal("test.liar"),
              HasSubstr("test.liar broke what it says it keeps: output output has other values"));
}

TEST(PassManager, RefusesSelectorsWithoutAMatchBeforeAnyWork) {
  Model model = parse_model(kLinear);
  const std::string text = message_of(
      [&] { run("test.scale,test.scale{where=hed},test.scale{where={kind=conv}}", model); });
  EXPECT_THAT(text, AllOf(HasSubstr("2 problems"),
                          HasSubstr("/steps/1/where: \"hed\" selects none of the model's 2 weights "
                                    "(did you mean `head`?)"),
                          HasSubstr("/steps/2/where: {\"kind\":\"conv\"} selects none")));
  EXPECT_FLOAT_EQ(first_weight(model), 1);
}

TEST(PassManager, NamesWeightsThatAreNotFinite) {
  Model model = parse_model(kLinear);
  model.set_tensor("head.weight", at::full({2, 2}, std::nan("")));
  EXPECT_THAT(message_of([&] { run("test.scale", model); }),
              HasSubstr("the model: NaN or infinite elements in head.weight"));
}

TEST(PassManager, NamesWeightsThatAStepMadeInfinite) {
  EXPECT_THAT(refusal("test.scale{factor=1e300,where=fc}"),
              AllOf(HasSubstr("/steps/0 (test.scale)"),
                    HasSubstr("the pass left NaN or infinite elements in fc.weight")));
}

TEST(PassManager, SaysWhereAnOperatorFailed) {
  const std::string text = refusal("test.scale,test.broken");
  EXPECT_THAT(
      text, AllOf(HasSubstr("/steps/1 (test.broken), at fc.weight: "), HasSubstr("mat1 and mat2")));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("frame #")));
}

TEST(PassManager, GivesTheSameBytesForTheSameSeedOnly) {
  const auto digest = [](uint64_t seed) {
    Model model = parse_model(kLinear);
    Recipe recipe = recipe_of("test.noise");
    recipe.seed = seed;
    return run_recipe(recipe, model).output_digest;
  };
  EXPECT_EQ(digest(1), digest(1));
  EXPECT_NE(digest(1), digest(2));
}

TEST(PassManager, LimitsEditsAndStopsAfter) {
  Model model = parse_model(kLinear);
  RunOptions options;
  options.limits = {{"test.scale", 1}};
  options.stop_after = "1";
  const RunResult result = run("test.scale,test.scale,test.noise", model, options);
  EXPECT_EQ(result.steps.size(), 2u);
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.steps[0].counts.at("scaled"), 1);
  EXPECT_FLOAT_EQ(first_weight(model), 4);
  EXPECT_FLOAT_EQ(model.tensor("head.weight").flatten()[0].item<float>(), 1);
}

TEST(PassManager, RefusesOptionsForPassesThatTheRecipeLacks) {
  RunOptions options;
  options.limits = {{"test.scal", 1}};
  options.stop_after = "7";
  options.print_after = {"test.liar"};
  EXPECT_THAT(
      refusal("test.scale", options),
      AllOf(HasSubstr("--limit: the recipe has no pass `test.scal` (did you mean `test.scale`?)"),
            HasSubstr("--stop-after: there is no step 7 (the steps are 0 to 0)"),
            HasSubstr("--print-after: the recipe has no pass `test.liar`")));
}

TEST(PassManager, CallsWhoAsked) {
  Model model = parse_model(kLinear);
  std::vector<std::string> calls;
  RunOptions options;
  options.print_after = {"test.noise"};
  options.on_step_begin = [&](size_t i, const Step&) {
    calls.push_back("begin " + std::to_string(i));
  };
  options.on_step_end = [&](const Model&, const RunState& state) {
    calls.push_back("end " + std::to_string(state.finished()));
  };
  options.on_print = [&](const Model&, const StepResult& step) {
    calls.push_back("print " + step.pass);
  };
  options.on_message = [&](const std::string& text) { calls.push_back(text); };
  run("test.scale,test.noise", model, options);
  EXPECT_THAT(calls, ElementsAre("begin 0", "scaled by 2", "end 1", "begin 1", "print test.noise",
                                 "end 2"));
}

TEST(PassManager, DoesNotResumeBehindTheStepToStopAfter) {
  const std::string line = "test.scale,test.scale,test.scale";
  Model model = parse_model(kLinear);
  RunState saved;
  RunOptions first;
  first.stop_after = "1";
  first.on_step_end = [&](const Model&, const RunState& state) { saved = state; };
  run(line, model, first);
  RunOptions second;
  second.stop_after = "0";
  second.resume = &saved;
  const RunResult resumed = run(line, model, second);
  EXPECT_TRUE(resumed.stopped);
  EXPECT_EQ(resumed.steps.size(), 2u);
  EXPECT_FLOAT_EQ(first_weight(model), 4);
}

TEST(PassManager, ResumesToTheSameBytes) {
  const std::string line = "test.noise,test.scale,test.noise";
  Model whole = parse_model(kLinear), cut = parse_model(kLinear);
  const RunResult expected = run(line, whole);
  RunState saved;
  RunOptions first;
  first.stop_after = "0";
  first.on_step_end = [&](const Model&, const RunState& state) { saved = state; };
  run(line, cut, first);
  cut.metadata.clear();  // a checkpoint is written before the provenance
  require_resumable(saved, recipe_of(line), expected.input_digest, model_digest(cut));
  RunOptions second;
  second.resume = &saved;
  const RunResult resumed = run(line, cut, second);
  EXPECT_EQ(resumed.steps.size(), 3u);
  EXPECT_EQ(resumed.output_digest, expected.output_digest);
  EXPECT_EQ(cut.metadata, whole.metadata);
}

TEST(PassManager, LeavesTheSameProvenanceEachTime) {
  Model model = parse_model(kLinear), again = parse_model(kLinear);
  const RunResult result = run("test.scale", model);
  run("test.scale", again);
  EXPECT_EQ(model.metadata, again.metadata);
  const Json provenance = parse_json(model.metadata.at("lathe.provenance"));
  EXPECT_EQ(provenance["input"], result.input_digest);
  EXPECT_EQ(provenance["recipe"]["steps"][0]["pass"], "test.scale");
  EXPECT_EQ(provenance["steps"][0]["counts"]["scaled"], 2);
  EXPECT_FALSE(provenance["steps"][0].contains("seconds"));
  run("test.noise", model);
  EXPECT_EQ(parse_json(model.metadata.at("lathe.provenance"))["earlier"], provenance);
}

TEST(PassManager, CollectsTheStatisticsThatAPassWishesFor) {
  Model model = parse_model(kLinear);
  RunOptions options;
  options.calibration = [](const auto& consume) { consume({at::full({4, 2}, 8.0)}); };
  run("test.calibrated", model, options);
  EXPECT_FLOAT_EQ(first_weight(model), 0.125f);
}

TEST(PassManager, RefusesToCalibrateWithoutData) {
  EXPECT_THAT(
      refusal("test.calibrated"),
      HasSubstr("/steps/0: test.calibrated needs calibration data (add a `calibration` entry"));
}

}  // namespace
}  // namespace compress
