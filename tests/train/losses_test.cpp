// Options of a recipe become losses: what they wish for, compute, train and refuse.

#include "compress/train/losses.h"

#include "compress/error.h"
#include "compress/train/label_losses.h"
#include "compress/train/loss.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <functional>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

// A struct that holds a list of losses, as the options of training do.
struct Terms {
  std::vector<LossOptions> losses;
  template <class Visitor>
  void visit(Visitor& field) {
    field("losses", losses, "The terms.");
  }
};

// All problems of a text, one a line.
std::string read(const std::string& losses, std::vector<LossOptions>* result = nullptr) {
  OptionsOf<Terms> options;
  Problems problems;
  read_options(parse_json("{\"losses\": " + losses + "}"), "", options, problems);
  if (result != nullptr) *result = options.value.losses;
  std::string lines;
  for (const Error& problem : problems.list()) lines += std::string(problem.what()) + "\n";
  return lines;
}

std::unique_ptr<Loss> loss_of(const std::string& text) {
  std::vector<LossOptions> losses;
  EXPECT_EQ(read("[" + text + "]", &losses), "");
  return make_loss(losses.at(0));
}

// Two samples, three classes, a feature map and a vector on either side.
struct Setting {
  Batch batch;
  Activations student;
  std::map<std::string, Activations> teachers;

  Setting() {
    at::manual_seed(1);
    batch.inputs = {at::randn({2, 3})};
    batch.labels = at::tensor({2, 0}, at::kLong);
    batch.indices = {0, 1};
    student = activations(4);
    teachers = {{"original", activations(6)}, {"big", activations(4)}};
  }
  static Activations activations(int64_t channels) {
    return {{at::randn({2, 3})},
            {{"map", at::randn({2, channels, 4, 4})}, {"vector", at::randn({2, channels})}}};
  }
  LossBatch view(double epoch = 0) const { return {batch, student, teachers, epoch, 10}; }
};

double compute(Loss& loss, const Setting& setting, double epoch = 0) {
  loss.prepare(setting.view(), 1);
  const at::Tensor value = loss.compute(setting.view(epoch));
  EXPECT_EQ(value.dim(), 0);
  return value.item<double>();
}

TEST(LossOptions, HaveTheWeightsOfTheirPapers) {
  const std::vector<std::pair<std::string, double>> weights = {
      {R"("cross_entropy")", 1},
      {R"("mean_squared_error")", 1},
      {R"("distill_logits")", 0.9},
      {R"({"hint": {"tap": "a"}})", 100},
      {R"({"attention": {"taps": ["a"]}})", 1000},
      {R"({"similarity": {"tap": "a"}})", 3000},
      {R"({"relations": {"tap": "a"}})", 1},
      {R"("decoupled")", 1},
      {R"({"contrastive": {"tap": "a"}})", 0.8},
      {R"({"feature_error": {"taps": ["a"]}})", 1}};
  for (const auto& [text, weight] : weights) {
    const std::unique_ptr<Loss> loss = loss_of(text);
    EXPECT_EQ(loss->weight(), weight) << text;
    EXPECT_THAT(text, HasSubstr(loss->name()));
  }
}

TEST(LossOptions, ReadTapsAndTeachersInBothForms) {
  const auto loss = loss_of(R"({"attention": {
      "teacher": ["original", "big"],
      "taps": ["layer1", {"student": "layer2", "teacher": "layer3"}], "weight": 5}})");
  EXPECT_EQ(loss->weight(), 5);
  const LossWishes wishes = loss->wishes();
  EXPECT_THAT(wishes.teachers, ElementsAre("original", "big"));
  EXPECT_THAT(wishes.student_taps, ElementsAre("layer1", "layer2"));
  EXPECT_THAT(wishes.teacher_taps, ElementsAre(Pair("big", ElementsAre("layer1", "layer3")),
                                               Pair("original", ElementsAre("layer1", "layer3"))));
  EXPECT_THAT(loss_of(R"("cross_entropy")")->wishes().teachers, IsEmpty());
  EXPECT_THAT(loss_of(R"({"decoupled": {"teacher": "big"}})")->wishes().teachers,
              ElementsAre("big"));
}

TEST(LossOptions, WriteWhatTheyRead) {
  const std::string text = R"([{"hint":{"tap":{"student":"a","teacher":"b"}}},)"
                           R"({"distill_logits":{"teacher":["x","y"],"reduction":"mean"}}])";
  OptionsOf<Terms> options, again, defaults;
  Problems problems;
  read_options(parse_json("{\"losses\": " + text + "}"), "", options, problems);
  const Json written = write_options(options, defaults);
  read_options(written, "", again, problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(written, write_options(again, defaults));
  EXPECT_EQ(written["losses"][0]["hint"]["tap"]["teacher"], "b");
  EXPECT_EQ(written["losses"][1]["distill_logits"]["teacher"][1], "y");
}

TEST(LossOptions, AreRefusedWithTheirPlace) {
  EXPECT_THAT(read(R"([{"hint": {}}])"),
              HasSubstr("/losses/0/hint/tap: names no place to compare"));
  EXPECT_THAT(read(R"([{"attention": {"taps": []}}])"), HasSubstr("/losses/0/attention/taps"));
  EXPECT_THAT(read(R"([{"hint": {"tap": {"student": "a"}}}])"),
              HasSubstr("names no place in the two networks"));
  EXPECT_THAT(read(R"([{"hint": {"tap": ["a"]}}])"), HasSubstr("/losses/0/hint/tap: [\"a\"]"));
  EXPECT_THAT(read(R"([{"distill_logits": {"teacher": []}}])"), HasSubstr("names no teacher"));
  EXPECT_THAT(read(R"([{"distill_logits": {"teacher": ["a", "a"]}}])"),
              HasSubstr("/losses/0/distill_logits/teacher/1: the teacher `a` comes twice"));
  EXPECT_THAT(read(R"([{"distill_logits": {"temperature": 0}}])"), HasSubstr("temperature"));
  EXPECT_THAT(read(R"(["distil_logits"])"), HasSubstr("did you mean `distill_logits`?"));
  // A bare name has its defaults, which for features name no place.
  EXPECT_THAT(testing::message_of([] { loss_of(R"("hint")"); }),
              HasSubstr("/hint/tap: names no place"));
}

TEST(Losses, ComputeTheirFunctions) {
  const Setting s;
  const at::Tensor& ours = s.student.outputs[0];
  const Activations& original = s.teachers.at("original");
  const auto map = [](const Activations& a) { return a.taps.at("map"); };
  const auto expect = [&](const std::string& text, const at::Tensor& expected) {
    EXPECT_EQ(compute(*loss_of(text), s), expected.item<double>()) << text;
  };
  expect(R"({"cross_entropy": {"label_smoothing": 0.1}})",
         cross_entropy(ours, s.batch.labels, 0.1));
  expect(R"({"distill_logits": {"temperature": 2, "reduction": "mean"}})",
         kd_logits(ours, original.outputs[0], 2, KlReduction::kMean));
  expect(R"({"decoupled": {"beta": 2, "warmup_epochs": 0}})",
         decoupled_kd(ours, original.outputs[0], s.batch.labels, 1, 2, 4));
  expect(R"({"similarity": {"tap": "map"}})", similarity_preserving(map(s.student), map(original)));
  expect(R"({"relations": {"tap": "vector", "distance": 2, "angle": 3}})",
         2 * relational_distance(s.student.taps.at("vector"), original.taps.at("vector")) +
             3 * relational_angle(s.student.taps.at("vector"), original.taps.at("vector")));
  expect(R"({"attention": {"taps": ["map", "map"], "form": "norm"}})",
         2 * attention_transfer(map(s.student), map(original), AttentionForm::kNorm));
  expect(R"({"feature_error": {"teacher": "big", "taps": ["map", "vector"], "metric": "cosine"}})",
         cosine_error(map(s.student), map(s.teachers.at("big"))) +
             cosine_error(s.student.taps.at("vector"), s.teachers.at("big").taps.at("vector")));
}

TEST(Losses, SquaredErrorComparesWithLabelsOrWithTheInput) {
  Setting s;
  s.batch.labels = at::Tensor();
  EXPECT_EQ(compute(*loss_of(R"("mean_squared_error")"), s),
            mean_squared_error(s.student.outputs[0], s.batch.inputs[0]).item<double>());
  s.batch.labels = at::ones({2, 3});
  EXPECT_EQ(compute(*loss_of(R"("mean_squared_error")"), s),
            mean_squared_error(s.student.outputs[0], s.batch.labels).item<double>());
}

// mean_i KL(p_i || q) and KL(mean_i p_i || q) differ by what does not depend on q.
TEST(Losses, SeveralTeachersHaveTheGradientOfTheMeanDistribution) {
  Setting s;
  const at::Tensor logits = s.student.outputs[0].to(at::kDouble);
  for (auto& [name, teacher] : s.teachers) teacher.outputs[0] = teacher.outputs[0].to(at::kDouble);
  const at::Tensor p = (at::softmax(s.teachers.at("original").outputs[0] / 4, 1) +
                        at::softmax(s.teachers.at("big").outputs[0] / 4, 1)) /
                       2;
  s.student.outputs[0] = logits.clone().set_requires_grad(true);
  const auto loss = loss_of(R"({"distill_logits": {"teacher": ["original", "big"]}})");
  loss->prepare(s.view(), 1);
  loss->compute(s.view()).backward();
  const at::Tensor of_mean = logits.clone().set_requires_grad(true);
  kd_logits(of_mean, p.log() * 4, 4).backward();
  EXPECT_TRUE(at::allclose(s.student.outputs[0].grad(), of_mean.grad(), 1e-10, 1e-14));
}

TEST(Losses, DecoupledGrowsDuringItsWarmUp) {
  const Setting s;
  const auto loss = loss_of(R"({"decoupled": {"warmup_epochs": 4}})");
  const double full = compute(*loss_of(R"({"decoupled": {"warmup_epochs": 0}})"), s);
  for (const auto& [epoch, share] :
       std::vector<std::pair<double, double>>{{0, 0.25}, {0.9, 0.25}, {1, 0.5}, {3, 1}, {9.5, 1}}) {
    EXPECT_NEAR(compute(*loss, s, epoch), share * full, 1e-6 * full) << epoch;
  }
}

TEST(HintLoss, AdaptsChannelsWithALayerThatIsTrained) {
  for (const std::string tap : {"map", "vector"}) {
    Setting s;
    s.student.taps.at(tap).set_requires_grad(true);
    const auto loss = loss_of(R"({"hint": {"tap": ")" + tap + "\"}}");
    loss->prepare(s.view(), 7);
    const auto parameters = loss->parameters();
    ASSERT_EQ(parameters.size(), 2u);
    const at::Tensor weight = parameters.at("original.weight");
    EXPECT_EQ(weight.sizes().slice(0, 2), (std::vector<int64_t>{6, 4}));
    EXPECT_EQ(weight.dim(), tap == "map" ? 4 : 2);
    EXPECT_LE(weight.abs().max().item<double>(), 0.5);  // 1 / sqrt(4 inputs)

    const at::Tensor value = loss->compute(s.view());
    const at::Tensor flat = weight.flatten(1), bias = parameters.at("original.bias");
    const at::Tensor& ours = s.student.taps.at(tap);
    // The same with the channels last and one matrix product.
    const at::Tensor adapted = at::matmul(ours.movedim(1, -1), flat.t()).add(bias).movedim(-1, 1);
    EXPECT_NEAR(value.item<double>(),
                hint(adapted, s.teachers.at("original").taps.at(tap)).item<double>(), 1e-5);
    value.backward();
    EXPECT_TRUE(weight.grad().defined());
    EXPECT_TRUE(ours.grad().defined());

    const auto again = loss_of(R"({"hint": {"tap": ")" + tap + "\"}}");
    again->prepare(s.view(), 7);
    EXPECT_TRUE(again->parameters().at("original.weight").equal(weight));
    again->prepare(s.view(), 8);
    EXPECT_FALSE(again->parameters().at("original.weight").equal(weight));
  }
}

TEST(HintLoss, ComparesEqualChannelsAsTheyAre) {
  const Setting s;
  const auto loss = loss_of(R"({"hint": {"tap": "map", "teacher": "big"}})");
  EXPECT_EQ(compute(*loss, s),
            hint(s.student.taps.at("map"), s.teachers.at("big").taps.at("map")).item<double>());
  EXPECT_THAT(loss->parameters(), IsEmpty());
}

TEST(HintLoss, RefusesSizesThatNoAdapterFits) {
  Setting s;
  EXPECT_THAT(testing::message_of(
                  [&] { compute(*loss_of(R"({"hint": {"tap": "map", "adapter": "none"}})"), s); }),
              HasSubstr("the student's feature is [2, 4, 4, 4], the teacher's [2, 6, 4, 4]"));
  s.teachers.at("original").taps["map"] = at::zeros({2, 6, 2, 2});
  EXPECT_THAT(testing::message_of([&] { compute(*loss_of(R"({"hint": {"tap": "map"}})"), s); }),
              HasSubstr("hint: with the teacher `original`, at `map`: the student's feature is "
                        "[2, 4, 4, 4], the teacher's [2, 6, 2, 2]"));
}

TEST(ContrastiveLoss, HasBanksForTheTrainingSetAndAnEmbeddingForEachSide) {
  Setting s;
  s.student.taps.at("map").set_requires_grad(true);
  const auto loss = loss_of(R"({"contrastive": {"tap": "map", "dim": 8, "negatives": 5}})");
  loss->prepare(s.view(), 3);
  EXPECT_EQ(loss->parameters().at("original.student.weight").sizes(),
            (std::vector<int64_t>{8, 64}));
  EXPECT_EQ(loss->parameters().at("original.teacher.weight").sizes(),
            (std::vector<int64_t>{8, 96}));
  const at::Tensor bank = loss->buffers().at("original.student_bank");
  EXPECT_EQ(bank.sizes(), (std::vector<int64_t>{10, 8}));
  const at::Tensor before = bank.clone();
  loss->compute(s.view()).backward();
  EXPECT_TRUE(s.student.taps.at("map").grad().defined());
  const at::Tensor changed = bank.ne(before).any(1);
  EXPECT_TRUE(changed.slice(0, 0, 2).all().item<bool>());
  EXPECT_FALSE(changed.slice(0, 2).any().item<bool>());
}

TEST(Losses, RefuseABatchThatDoesNotFit) {
  Setting s;
  s.teachers.at("big").outputs[0] = at::zeros({2, 100});
  for (const std::string name : {"distill_logits", "decoupled"}) {
    EXPECT_THAT(testing::message_of(
                    [&] { compute(*loss_of("{\"" + name + "\": {\"teacher\": \"big\"}}"), s); }),
                HasSubstr("teacher `big`: it tells 100 classes apart, the student 3"));
  }
  s.batch.labels = at::tensor({2, 3}, at::kLong);
  EXPECT_THAT(testing::message_of([&] { compute(*loss_of(R"("cross_entropy")"), s); }),
              HasSubstr("label 3 is outside the model's 3 classes"));
  s.batch.labels = at::Tensor();
  EXPECT_THAT(testing::message_of([&] { compute(*loss_of(R"("cross_entropy")"), s); }),
              HasSubstr("cross_entropy: the training data has no labels"));
  EXPECT_THAT(testing::message_of([&] { compute(*loss_of(R"("decoupled")"), s); }),
              HasSubstr("the training data has no labels"));
  EXPECT_THAT(
      testing::message_of([&] { compute(*loss_of(R"({"attention": {"taps": ["vector"]}})"), s); }),
      HasSubstr("attention: with the teacher `original`, at `vector`: attention is "
                "compared between two [n, c, h, w]"));
}

}  // namespace
}  // namespace compress
