// What holds for every pass of the registry, whatever it does.

#include "compress/data/tensors.h"
#include "compress/graph/digest.h"
#include "compress/graph/text.h"
#include "compress/schema.h"
#include "compress/train/environment.h"
#include "compress/weight.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace compress {
namespace {

// A convolution with a batch norm and a linear layer: something to do for any pass of weights.
constexpr const char* kNetwork = R"(
input x : f32[batch,4,6,6]
parameter conv.weight : f32[8,4,3,3]
parameter bn.weight : f32[8]
parameter bn.bias : f32[8]
buffer bn.running_mean : f32[8] = [0, 0.5, -1, 0, 2, 1, 0, -0.5]
buffer bn.running_var : f32[8] = [1, 2, 0.5, 1, 1, 3, 1, 0.25]
parameter fc.weight : f32[16,8]
parameter fc.bias : f32[16]
conv2d = aten::conv2d(x, conv.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,6,6] @ conv
batch_norm = aten::batch_norm(conv2d, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 0.00001, true) : f32[batch,8,6,6] @ bn
relu = aten::relu(batch_norm) : f32[batch,8,6,6]
mean = aten::mean.dim(relu, [2, 3]) : f32[batch,8]
linear = aten::linear(mean, fc.weight, fc.bias) : f32[batch,16] @ fc
return output = linear
)";

// The same for passes of attention and of residual blocks.
constexpr const char* kAttention = R"(
input x : f32[batch,4,6,6]
parameter qkv.weight : f32[108,36]
parameter out.weight : f32[36,36]
tokens = aten::flatten.using_ints(x, 2) : f32[batch,4,36]
qkv = aten::linear(tokens, qkv.weight) : f32[batch,4,108] @ attention.qkv
parts = aten::unflatten.int(qkv, 2, [3, 4, 9]) : f32[batch,4,3,4,9]
turned = aten::permute(parts, [2, 0, 3, 1, 4]) : f32[3,batch,4,4,9]
q = aten::select.int(turned, 0, 0) : f32[batch,4,4,9]
k = aten::select.int(turned, 0, 1) : f32[batch,4,4,9]
v = aten::select.int(turned, 0, 2) : f32[batch,4,4,9]
heads = aten::scaled_dot_product_attention(q, k, v) : f32[batch,4,4,9]
back = aten::transpose.int(heads, 1, 2) : f32[batch,4,4,9]
joined = aten::flatten.using_ints(back, 2) : f32[batch,4,36]
out = aten::linear(joined, out.weight) : f32[batch,4,36] @ attention.out
sum = aten::add.Tensor(tokens, out) : f32[batch,4,36]
return output = sum
)";

Model network(const std::string& id) {
  const bool attention = id == "prune.heads" || id == "prune.layers";
  return testing::parse_filled(attention ? kAttention : kNetwork);
}

// Every data entry of a recipe is a few random images.
TrainingEnvironment training_environment() {
  TrainingEnvironment environment;
  environment.has_data = [](const std::string&) { return true; };
  environment.open_data = [](const std::string&, bool) {
    at::manual_seed(1);
    return tensor_dataset({at::randn({128, 4, 6, 6})}, at::arange(128).remainder(16), "random");
  };
  return environment;
}

// The calibration data of whoever asks for some.
void calibration(const std::function<void(const std::vector<at::Tensor>&)>& consume) {
  consume({at::ones({2, 4, 6, 6})});
}

class PassLaw : public ::testing::TestWithParam<std::string> {
 protected:
  const Pass& pass() const { return testing::passes().at(GetParam()); }
  std::filesystem::path beside(const std::string& folder, const std::string& ending) const {
    return testing::source_dir() / folder / (pass_path(pass()) + ending);
  }
  // Runs the smallest recipe of the pass on the network, with all checks of the manager.
  RunResult run_recipe_file(Model& model) const {
    RunOptions options;
    options.verify = true;
    const TrainingEnvironment training = training_environment();
    options.training = &training;
    options.calibration = calibration;
    return run_recipe(load_recipe(beside("recipes", ".json").string(), testing::passes()), model,
                      options);
  }
};

TEST_P(PassLaw, HasSourceTestAndRecipe) {
  EXPECT_TRUE(std::filesystem::exists(beside("passes", ".cpp")));
  EXPECT_TRUE(std::filesystem::exists(beside("tests/passes", "_test.cpp")));
  EXPECT_TRUE(std::filesystem::exists(beside("recipes", ".json")));
}

TEST_P(PassLaw, HasAPageThatSaysWhatItsCardAndOptionsSay) {
  const std::filesystem::path file = beside("docs/passes", ".md");
  if (std::getenv("UPDATE_GOLDEN") != nullptr) {
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << pass_page(pass());
  }
  std::ifstream stream(file);
  const std::string page((std::istreambuf_iterator<char>(stream)), {});
  EXPECT_EQ(page, pass_page(pass())) << "UPDATE_GOLDEN=1 rewrites the page";
}

TEST_P(PassLaw, DescribesItselfAndEachOption) {
  EXPECT_FALSE(pass().info().summary.empty());
  EXPECT_NE(pass().info().summary.back(), '.');
  for (const Field& field : pass().default_options()->fields()) {
    EXPECT_EQ(field.help.substr(field.help.size() - 1), ".") << field.name;
  }
}

TEST_P(PassLaw, AcceptsItsDefaults) {
  const std::unique_ptr<AnyOptions> defaults = pass().default_options(), read = defaults->clone();
  Problems problems;
  read_options(write_options(*defaults, *defaults), "", *read, problems);
  EXPECT_NO_THROW(problems.throw_if_any());
}

TEST_P(PassLaw, PrintsAndReadsItsRecipeStably) {
  const Recipe recipe = load_recipe(beside("recipes", ".json").string(), testing::passes());
  const std::string text = print_recipe(recipe), line = print_recipe_line(recipe);
  EXPECT_EQ(print_recipe(read_recipe(parse_recipe_source(text), testing::passes())), text);
  EXPECT_EQ(print_recipe_line(testing::recipe_of(line)), line);
}

TEST_P(PassLaw, DoesSomethingAndKeepsItsPromises) {
  Model model = network(GetParam());
  const RunResult result = run_recipe_file(model);
  EXPECT_NE(result.input_digest, result.output_digest);
}

// What holds for passes that are steps of their own.
class StepLaw : public PassLaw {};

TEST_P(StepLaw, GivesTheSameBytesWhateverTheNumberOfThreads) {
  Model one = network(GetParam()), three = network(GetParam());
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  run_recipe_file(one);
  at::set_num_threads(3);
  run_recipe_file(three);
  at::set_num_threads(threads);
  EXPECT_EQ(model_digest(one), model_digest(three));
  EXPECT_EQ(one.metadata, three.metadata);
}

TEST_P(StepLaw, RefusesASelectorWithoutAMatch) {
  const std::unique_ptr<AnyOptions> options = pass().default_options();
  for (const Field& field : options->fields()) {
    if (field.selector() == nullptr) continue;
    Model model = network(GetParam());
    const std::string before = model_digest(model);
    EXPECT_THAT(testing::refusal(GetParam() + "{" + field.name + "=no.such.layer}", model),
                ::testing::HasSubstr("selects none of the model's 2 weights"));
    EXPECT_EQ(model_digest(model), before);
  }
}

TEST_P(StepLaw, DoesNothingWhenNoEditIsAllowed) {
  Model model = network(GetParam());
  const TrainingEnvironment training = training_environment();
  RunOptions options;
  options.training = &training;
  options.calibration = calibration;
  options.limits = {{GetParam(), 0}};
  const RunResult result = testing::run_passes(GetParam(), model, options);
  EXPECT_EQ(result.input_digest, result.output_digest);
}

// What holds for passes that work during training.
class HookLaw : public PassLaw {};

TEST_P(HookLaw, GivesTheSameBytesTwice) {
  Model once = network(GetParam()), twice = network(GetParam());
  run_recipe_file(once);
  run_recipe_file(twice);
  EXPECT_EQ(model_digest(once), model_digest(twice));
  EXPECT_EQ(once.metadata, twice.metadata);
}

TEST_P(HookLaw, RefusesASelectorWithoutAMatchBeforeAnyWork) {
  const TrainingEnvironment training = training_environment();
  RunOptions options;
  options.training = &training;
  const std::unique_ptr<AnyOptions> defaults = pass().default_options();
  for (const Field& field : defaults->fields()) {
    if (field.selector() == nullptr) continue;
    Model model = network(GetParam());
    const Recipe recipe = testing::recipe_of("train{during=[{pass=" + GetParam() + "," +
                                             field.name + "=no.such.layer}]}");
    const Problems problems = check_recipe(recipe, model, options);
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_THAT(problems.list()[0].what(),
                ::testing::AllOf(::testing::HasSubstr("selects none of the model's 2 weights"),
                                 ::testing::HasSubstr("/steps/0/train/during/0/" + field.name)));
  }
}

std::vector<std::string> ids(bool steps, bool hooks) {
  std::vector<std::string> chosen;
  for (const Pass* pass : testing::passes().passes()) {
    if (pass->info().id == kTrainId) continue;  // tests/train has its own
    if (pass->is_hook() ? hooks : steps) chosen.emplace_back(pass->info().id);
  }
  return chosen;
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, PassLaw, ::testing::ValuesIn(ids(true, true)), test_name);
INSTANTIATE_TEST_SUITE_P(All, StepLaw, ::testing::ValuesIn(ids(true, false)), test_name);
INSTANTIATE_TEST_SUITE_P(All, HookLaw, ::testing::ValuesIn(ids(false, true)), test_name);

}  // namespace
}  // namespace compress
