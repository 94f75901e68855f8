// Taps find the places of real graphs by the names that their modules have.

#include "compress/train/taps.h"

#include "compress/error.h"
#include "compress/graph/text.h"
#include "compress/model.h"
#include "compress/zoo/zoo.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

at::Tensor image(int64_t count) {
  at::manual_seed(2);
  return at::randn({count, 3, 32, 32});
}

std::string refusal(const Model& model, std::string_view text) {
  return testing::message_of([&] { find_tap(model, text); });
}

TEST(Taps, KeepWhatModulesOfAResNetGive) {
  const Model model = zoo::build("resnet20-cifar10");
  const at::Tensor x = image(2);
  const std::vector<std::string> texts = {"input",          "x",      "conv1",    "layer1.0:input",
                                          "layer1.0.conv1", "layer1", "layer2",   "layer3",
                                          "linear:input",   "linear", "layer3.2", "layer2:input",
                                          "output"};
  Taps taps(model, texts);
  const Activations seen = taps.run({x});
  EXPECT_THAT(taps.notes(), IsEmpty());
  ASSERT_EQ(seen.taps.size(), texts.size());
  const auto at = [&](const std::string& text) { return seen.taps.at(text); };
  using Sizes = std::vector<int64_t>;
  EXPECT_EQ(at("layer1").sizes(), (Sizes{2, 16, 32, 32}));
  EXPECT_EQ(at("layer2").sizes(), (Sizes{2, 32, 16, 16}));
  EXPECT_EQ(at("layer3").sizes(), (Sizes{2, 64, 8, 8}));
  EXPECT_TRUE(at("input").is_same(x));
  EXPECT_TRUE(at("x").is_same(x));
  // Layers again, by hand.
  EXPECT_TRUE(at("conv1").equal(at::conv2d(x, model.tensor("conv1.weight"), {}, 1, 1)));
  EXPECT_TRUE(at("layer1.0.conv1")
                  .equal(at::conv2d(at("layer1.0:input"), model.tensor("layer1.0.conv1.weight"), {},
                                    1, 1)));
  EXPECT_GE(at("layer1").min().item<float>(), 0.f);  // after the block's ReLU, not before
  EXPECT_TRUE(at("layer2:input").is_same(at("layer1")));
  EXPECT_TRUE(at("layer3.2").is_same(at("layer3")));
  EXPECT_TRUE(at::allclose(at("layer3").mean({2, 3}), at("linear:input"), 1e-5, 1e-6));
  EXPECT_TRUE(at("linear").equal(
      at::linear(at("linear:input"), model.tensor("linear.weight"), model.tensor("linear.bias"))));
  EXPECT_TRUE(at("linear").is_same(seen.outputs.at(0)));
  EXPECT_TRUE(at("output").is_same(seen.outputs.at(0)));
  EXPECT_TRUE(seen.outputs.at(0).equal(model.forward({x}).at(0)));
}

TEST(Taps, LetGradientsThrough) {
  Model model = zoo::build("resnet20-cifar10");
  for (at::Tensor& parameter : model.parameters()) parameter.set_requires_grad(true);
  Activations seen = run_with_taps(model, {image(1)}, {"layer1"});
  seen.taps.at("layer1").sum().backward();
  EXPECT_TRUE(model.tensor("conv1.weight").grad().defined());
  EXPECT_FALSE(model.tensor("layer2.0.conv1.weight").grad().defined());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(run_with_taps(model, {image(1)}, {"layer1"}).taps.at("layer1").requires_grad());
}

TEST(Taps, FollowTheGraphWhenItIsEdited) {
  Model model = parse_model(
      "input x : f32[batch,2]\n"
      "relu = aten::relu(x) @ act\n"
      "neg = aten::neg(relu)\n"
      "return output = neg\n");
  Taps taps(model, {"act"});
  const at::Tensor x = at::tensor({1.f, -2.f}).view({1, 2});
  EXPECT_TRUE(taps.run({x}).taps.at("act").equal(at::relu(x)));
  Graph& graph = model.graph();
  Value* relu = graph.find("relu");
  Node* neg = graph.find("neg")->producer();
  Node* abs =
      graph.insert(neg, {.op = "aten::abs", .arguments = {graph.find("x")}, .module_path = "act"});
  graph.replace_uses(relu, abs->output(), abs);
  graph.erase(relu->producer());
  EXPECT_TRUE(taps.run({x}).taps.at("act").equal(x.abs()));
}

// Of module `m`, `a` is read inside only, `b` and `c` leave; `max` returns two values.
constexpr std::string_view kBranches =
    "input x : f32[batch,2]\n"
    "a = aten::relu(x) @ m.one\n"
    "b = aten::neg(a) @ m.two\n"
    "c = aten::abs(b) @ m\n"
    "d = aten::exp(c) @ m\n"
    "n, n_index = aten::max.dim(b, 1) @ n\n"
    "two = aten::add.Tensor(c, b)\n"
    "last = aten::neg(two) @ tail\n"
    "return output = two\n";

TEST(FindTap, TakesTheLastValueThatLeavesAModuleAndSaysSo) {
  const Model model = parse_model(kBranches);
  const TapPlace m = find_tap(model, "m");
  EXPECT_EQ(m.value->name(), "c");  // `d` comes later, but nothing reads it
  EXPECT_THAT(m.note, HasSubstr("2 values leave the module `m` (b, c): the last, `c`, is tapped"));
  EXPECT_EQ(find_tap(model, "m.one").value->name(), "a");
  EXPECT_EQ(find_tap(model, "m.one").note, "");
  EXPECT_EQ(find_tap(model, "m:input").value->name(), "x");
  EXPECT_EQ(find_tap(model, "m.two:input").value->name(), "a");
  EXPECT_EQ(find_tap(model, "tail").value->name(), "last");  // leaves for nowhere
  EXPECT_EQ(find_tap(model, "d").value->name(), "d");
}

TEST(FindTap, DoesNotTakeTheSecondResultOfAnOperatorThatNobodyReads) {
  const Model model = parse_model(
      "input x : f32[batch,2]\n"
      "n, n_index = aten::max.dim(x, 1) @ n\n"
      "return output = n\n");
  EXPECT_EQ(find_tap(model, "n").value->name(), "n");
  EXPECT_EQ(find_tap(model, "n").note, "");
}

TEST(FindTap, PrefersAModuleToAValueAndSaysSo) {
  const Model model = parse_model(
      "input fc : f32[batch,2]\n"
      "relu = aten::relu(fc) @ fc\n"
      "return output = relu\n");
  const TapPlace place = find_tap(model, "fc");
  EXPECT_EQ(place.value->name(), "relu");
  EXPECT_THAT(place.note, HasSubstr("`fc` is a module and a value: the module's output, `relu`"));
}

TEST(FindTap, RefusesWithTheNearestName) {
  const Model model = zoo::build("resnet20-cifar10");
  EXPECT_THAT(refusal(model, "layr2"), HasSubstr("no module and no value `layr2`"));
  EXPECT_THAT(refusal(model, "layr2"), HasSubstr("did you mean `layer2`?"));
  EXPECT_THAT(refusal(model, "layer2.0.conv9"), HasSubstr("did you mean `layer2.0.conv"));
  EXPECT_THAT(refusal(model, "liner:input"), HasSubstr("did you mean `linear`?"));
  EXPECT_THAT(refusal(model, ""), HasSubstr("no module and no value"));
  EXPECT_THAT(refusal(model, "conv1.weight"),
              HasSubstr("is not a tensor that the model computes from its inputs"));
  EXPECT_THAT(refusal(parse_model("input x : f32[batch,2]\n"
                                  "parameter w : f32[2] = [1, 2]\n"
                                  "abs = aten::abs(w)\n"
                                  "add = aten::add.Tensor(x, abs)\n"
                                  "return output = add\n"),
                      "abs"),
              HasSubstr("is not a tensor that the model computes from its inputs"));
}

}  // namespace
}  // namespace compress
