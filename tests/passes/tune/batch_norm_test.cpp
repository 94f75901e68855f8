// Tests of passes/tune/batch_norm.

#include "compress/train/environment.h"
#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

// Two normalised convolutions, one behind the other.
constexpr const char* kNetwork = R"(
input x : f32[batch,3,8,8]
parameter a.weight : f32[4,3,3,3]
parameter b.weight : f32[6,4,3,3]
parameter bn1.weight : f32[4]
parameter bn1.bias : f32[4]
buffer bn1.running_mean : f32[4] = [0, 0, 0, 0]
buffer bn1.running_var : f32[4] = [1, 1, 1, 1]
buffer bn2.running_mean : f32[6] = [0, 0, 0, 0, 0, 0]
buffer bn2.running_var : f32[6] = [1, 1, 1, 1, 1, 1]
a = aten::conv2d(x, a.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,4,8,8]
norm1 = aten::batch_norm(a, bn1.weight, bn1.bias, bn1.running_mean, bn1.running_var, false, 0.1, 0.00001, true) : f32[batch,4,8,8]
relu = aten::relu(norm1) : f32[batch,4,8,8]
b = aten::conv2d(relu, b.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,6,8,8]
norm2 = aten::batch_norm(b, none, none, bn2.running_mean, bn2.running_var, false, 0.1, 0.00001, true) : f32[batch,6,8,8]
return y = norm2
)";

RunResult run(std::string_view line, Model& model, const at::Tensor& images,
              const Model* original = nullptr) {
  const TrainingEnvironment training;
  RunOptions options;
  options.training = &training;
  options.original = original;
  options.calibration = [&](const auto& consume) {
    for (const at::Tensor& batch : images.split(40)) consume({batch});
  };
  return run_passes(line, model, std::move(options));
}

at::Tensor images() {
  at::manual_seed(1);
  return at::randn({100, 3, 8, 8}) + 0.5;
}

TEST(TuneBatchNorm, DataMakesEveryNormsOutputCentredAndOfVarianceOne) {
  Model model = parse_filled(kNetwork);
  const at::Tensor x = images();
  const RunResult result = run("tune.batch_norm{mode=data}", model, x);
  EXPECT_EQ(result.steps.at(0).counts.at("norms_tuned"), 2);
  // The second norm has no weight, and sees what the tuned first one gives.
  const at::Tensor y = model.forward({x})[0].transpose(0, 1).flatten(1);
  EXPECT_LT(y.mean(1).abs().max().item<double>(), 1e-4);
  EXPECT_LT((y.var(1) - 1).abs().max().item<double>(), 1e-3);
}

// What moved the statistics before must not count twice.
TEST(TuneBatchNorm, ShiftStartsFromTheStatisticsOfTheOriginal) {
  const Model original = parse_filled(kNetwork);
  Model once = parse_filled(kNetwork);
  once.set_tensor("a.weight", once.tensor("a.weight") * 1.5 + 0.1);
  Model moved = once.clone();
  moved.set_tensor("bn1.running_mean", moved.tensor("bn1.running_mean") + 3);
  run("tune.batch_norm", once, images(), &original);
  run("tune.batch_norm", moved, images(), &original);
  for (const char* name : {"bn1.running_mean", "bn1.running_var", "bn2.running_mean"}) {
    EXPECT_TRUE(at::equal(once.tensor(name), moved.tensor(name))) << name;
  }
}

TEST(TuneBatchNorm, ShiftLeavesAnUncompressedNetworkAlone) {
  Model model = parse_filled(kNetwork);
  EXPECT_EQ(run("tune.batch_norm", model, images()).steps.at(0).change, Change::kNone);
}

// A weight that is halved by the compression: kept statistics, seen on any images, halve with it,
// and the outputs are what they were.
TEST(TuneBatchNorm, ShiftUndoesAScaledWeightOnAnyImages) {
  Model model = parse_filled(kNetwork);
  model.set_tensor("bn1.running_mean", at::tensor({0.1f, -0.2f, 0.3f, 0.f}));
  model.set_tensor("bn1.running_var", at::tensor({3.f, 2.f, 5.f, 4.f}));
  const Model original = model.clone();
  model.set_tensor("a.weight", model.tensor("a.weight") * 0.5);
  run("tune.batch_norm", model, images(), &original);
  EXPECT_TRUE(at::allclose(model.tensor("bn1.running_var"), at::tensor({.75f, .5f, 1.25f, 1.f})));
  at::manual_seed(2);
  const at::Tensor x = at::randn({4, 3, 8, 8});
  EXPECT_TRUE(at::allclose(model.forward({x})[0], original.forward({x})[0], 1e-3, 1e-3));
}

TEST(TuneBatchNorm, WorksBehindMasksAndCodes) {
  for (const char* line : {"prune.magnitude{sparsity=0.5},tune.batch_norm",
                           "quantize.weights{bits=2},tune.batch_norm"}) {
    Model tuned = parse_filled(kNetwork), plain = parse_filled(kNetwork);
    const at::Tensor x = images();
    run("tune.batch_norm{mode=data}", tuned, x);
    run("tune.batch_norm{mode=data}", plain, x);
    const at::Tensor before = plain.forward({x})[0];
    const RunResult result = run(line, tuned, x);
    EXPECT_EQ(result.steps.at(1).counts.at("norms_tuned"), 2);
    std::string first(line);
    run_pass(first.substr(0, first.find(',')), plain);
    const auto error = [&](Model& model) {
      return (model.forward({x})[0] - before).square().mean().item<double>();
    };
    EXPECT_LT(error(tuned), error(plain)) << line;
  }
}

TEST(TuneBatchNorm, FallsBackToTheDataWhereTheNetworkHasChangedTooMuchAndSaysSo) {
  Model model = parse_filled(kNetwork);
  const at::Tensor x = images();
  run("tune.batch_norm{mode=data}", model, x);  // so that the first norm's outputs stay as they are
  const Model original = model.clone();
  model.set_tensor("a.weight", model.tensor("a.weight") * 100);
  const RunResult result = run("tune.batch_norm", model, x, &original);
  EXPECT_EQ(result.steps.at(0).counts.at("channels_replaced"), 4);
  EXPECT_THAT(result.steps.at(0).messages.at(0), HasSubstr("4 of 10 channels"));
}

TEST(TuneBatchNorm, SaysWhichNormsTheOriginalLacks) {
  Model model = parse_filled(kNetwork);
  Model folded = parse_filled(kNetwork);
  run_pass("fold.batch_norm", folded);
  const RunResult result = run("tune.batch_norm", model, images(), &folded);
  EXPECT_EQ(result.steps.at(0).counts.at("norms_not_compared"), 2);
  EXPECT_THAT(result.steps.at(0).messages.at(0),
              HasSubstr("bn1: statistics are those of the data"));
}

// A norm that two branches share has the statistics of both.
TEST(TuneBatchNorm, SeesAllUsesOfANorm) {
  constexpr const char* kShared = R"(
input x : f32[batch,3,4,4]
buffer bn.running_mean : f32[3]
buffer bn.running_var : f32[3]
parameter bn.weight : f32[3]
parameter bn.bias : f32[3]
twice = aten::mul.Scalar(x, 2) : f32[batch,3,4,4]
a = aten::batch_norm(x, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 1e-05, true) : f32[batch,3,4,4]
b = aten::batch_norm(twice, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 1e-05, true) : f32[batch,3,4,4]
sum = aten::add.Tensor(a, b) : f32[batch,3,4,4]
return y = sum
)";
  Model model = parse_filled(kShared);
  const at::Tensor x = images();
  EXPECT_EQ(run("tune.batch_norm{mode=data}", model, x).steps.at(0).counts.at("norms_tuned"), 1);
  const at::Tensor both = at::cat({x, 2 * x}).transpose(0, 1).flatten(1).to(at::kDouble);
  EXPECT_LT((model.tensor("bn.running_mean") - both.mean(1)).abs().max().item<double>(), 1e-6);
  EXPECT_LT((model.tensor("bn.running_var") - both.var(1)).abs().max().item<double>(), 1e-5);
}

TEST(TuneBatchNorm, RefusesFoldedNorms) {
  Model model = parse_filled(kNetwork);
  try {
    run("fold.batch_norm,tune.batch_norm", model, images());
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("if fold.batch_norm comes before this step"));
  }
}

TEST(TuneBatchNorm, RefusesTrainingMode) {
  Model model = parse_filled(kNetwork);
  model.train();
  try {
    run("tune.batch_norm", model, images());
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("eval mode"));
  }
}

TEST(TuneBatchNorm, RefusesToShiftWithoutAnOriginal) {
  Model model = parse_filled(kNetwork);
  RunOptions options;
  options.calibration = [](const auto& consume) { consume({images()}); };
  try {
    run_passes("tune.batch_norm", model, options);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("use `data`"));
  }
}

}  // namespace
}  // namespace compress::testing
