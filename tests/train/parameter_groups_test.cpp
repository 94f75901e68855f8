// Which parameters are trained, and what their groups say about them.

#include "compress/error.h"
#include "compress/graph/text.h"
#include "compress/train/optimizer.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"
#include "tests/train/golden_optimizers.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::parse_filled;

// A masked convolution, batch norm, and a head that is tied to an embedding.
const char* const kNet = R"(
input x : f32[2,4,8]
input ids : i64[2,3]
parameter conv.weight : f32[6,4,3]
parameter conv.bias : f32[6]
buffer conv.weight_mask : bool[6,4,3]
parameter bn.weight : f32[6]
parameter bn.bias : f32[6]
buffer bn.running_mean : f32[6]
buffer bn.running_var : f32[6]
parameter wte.weight alias head.weight : f32[10,6]
parameter offset : f32[6,1]
parameter spare : f32[7]
parameter indices : i64[3]
constant shift : f32[6]
mul = aten::mul.Tensor(conv.weight, conv.weight_mask)
a = aten::conv1d(x, mul, conv.bias, [1], [1]) @ conv
b = aten::batch_norm(a, bn.weight, bn.bias, bn.running_mean, bn.running_var, false, 0.1, 0.00001, true) @ bn
c = aten::add.Tensor(b, offset)
t = aten::transpose.int(c, 1, 2)
e = aten::embedding(wte.weight, ids) @ wte
w = aten::t(wte.weight)
d = aten::matmul(t, w) @ head
return d = d
return e = e
)";

std::vector<std::string> texts(const std::vector<SelectorTarget>& targets) {
  const auto kinds = option_names(OperatorKind{});
  std::vector<std::string> lines;
  for (const SelectorTarget& target : targets) {
    lines.push_back(target.name + " " + std::string(kinds[static_cast<size_t>(target.kind)]) +
                    " @ " + target.module_path + " " + std::to_string(target.elements));
  }
  return lines;
}

TEST(ParameterTargets, AreAllFloatingPointParametersWithTheLayerThatUsesThem) {
  const Model model = parse_filled(kNet);
  EXPECT_THAT(texts(parameter_targets(model)),
              ElementsAre("conv.weight conv @ conv 72", "conv.bias conv @ conv 6",
                          "bn.weight norm @ bn 6", "bn.bias norm @ bn 6",
                          "wte.weight linear @ head 60", "offset other @  6", "spare other @  7"));
  EXPECT_THAT(parameter_targets(model)[4].aliases, ElementsAre("head.weight"));
}

TEST(ParameterTargets, SeeThroughADecodingToTheScaleThatIsTrained) {
  const Model model = parse_filled(R"(
input x : f32[2,4]
buffer fc.weight_codes : i8[3,4]
parameter fc.weight_scale : f32[3,1]
values = aten::to.dtype(fc.weight_codes, f32)
weight = aten::mul.Tensor(values, fc.weight_scale)
y = aten::linear(x, weight) @ fc
return y = y
)");
  EXPECT_THAT(texts(parameter_targets(model)), ElementsAre("fc.weight_scale linear @ fc 3"));
}

TEST(ParameterTargets, OfASetOfTensorsHaveTheirNamesOnly) {
  const Model model = parse_filled("parameter a.fc.weight : f32[2,2]\nparameter b : f32[2]");
  EXPECT_THAT(texts(parameter_targets(model)),
              ElementsAre("a.fc.weight other @ a.fc 4", "b other @  2"));
}

std::vector<ParameterGroupOptions> read_groups(const std::string& json) {
  return testing::read_choice<std::vector<ParameterGroupOptions>>(parse_json(json));
}

std::vector<std::string> texts(const std::vector<OptimizedParameter>& parameters) {
  std::vector<std::string> lines;
  for (const OptimizedParameter& parameter : parameters) {
    std::ostringstream line;
    line << parameter.name << " " << parameter.lr_scale << " " << parameter.weight_decay;
    lines.push_back(line.str());
  }
  return lines;
}

TEST(ParameterGroups, TakeEachParameterOnceAndTheFirstGroupCounts) {
  const Model model = parse_filled(kNet);
  const auto groups = read_groups(R"([{"where": "conv*", "freeze": true},
      {"where": "head.weight", "lr_scale": 0.5},
      {"where": [{"kind": "norm"}, "*.bias"], "weight_decay": 0, "lr_scale": 2},
      {"where": {"max_elements": 6}, "lr_scale": 3}])");
  const auto parameters = optimized_parameters(model, groups, "/steps/0/train/groups");
  EXPECT_THAT(texts(parameters), ElementsAre("bn.weight 2 0", "bn.bias 2 0", "wte.weight 0.5 -1",
                                             "offset 3 -1", "spare 1 -1"));
  for (const OptimizedParameter& parameter : parameters) {
    EXPECT_TRUE(parameter.tensor.is_same(model.tensor(parameter.name)));
    EXPECT_TRUE(parameter.tensor.requires_grad());
  }
  EXPECT_FALSE(model.tensor("conv.weight").requires_grad());
  EXPECT_FALSE(model.tensor("bn.running_mean").requires_grad());
  EXPECT_EQ(optimized_parameters(model, {}, "").size(), 7u);
  EXPECT_TRUE(model.tensor("conv.weight").requires_grad());
}

TEST(ParameterGroups, OneTensorUnderTwoNamesIsOneParameter) {
  Model model = parse_filled("parameter a : f32[2,2]\nparameter b : f32[2,2]");
  model.set_tensor("b", model.tensor("a"));
  EXPECT_THAT(texts(optimized_parameters(model, {}, "")), ElementsAre("a 1 -1"));
}

std::string refusal(const Model& model, const std::string& groups) {
  return testing::message_of([&] { optimized_parameters(model, read_groups(groups), "/groups"); });
}

TEST(ParameterGroups, RefuseASelectorThatMatchesNothingWithTheNearestName) {
  Model model = parse_filled(kNet);
  EXPECT_THAT(refusal(model, R"(["x"])"), HasSubstr("is not an object of options"));
  const std::string text = refusal(model, R"([{"where": "bn.*"}, {"where": "cnv.*"}])");
  EXPECT_THAT(text, HasSubstr("/groups/1/where: "));
  EXPECT_THAT(text, HasSubstr("did you mean `conv.*`?"));
  EXPECT_THAT(refusal(model, R"([{"where": {"kind": "recurrent"}}])"), HasSubstr("conv.weight"));
  EXPECT_THAT(refusal(model, R"([{"weight_decay": -0.5}])"),
              HasSubstr("/0/weight_decay: -0.5 is neither -1 nor at least 0"));
  EXPECT_THAT(refusal(model, R"([{"lr_scale": -1}])"), HasSubstr("-1 is less than 0"));
}

TEST(ParameterGroups, RefuseATensorThatWasComputed) {
  Model model = parse_filled("parameter a : f32[2,2]");
  const at::Tensor leaf = at::ones({2, 2}).set_requires_grad(true);
  model.set_tensor("a", leaf * 2);
  EXPECT_THAT(refusal(model, "[]"), HasSubstr("a: it was computed from other tensors"));
}

// A step of a whole model: what each group says, in closed form. The gradients are 1, and plain SGD
// takes w - lr * lr_scale * (1 + decay * w).
TEST(ParameterGroups, DecideWhatAStepDoes) {
  const Model model = parse_filled(kNet);
  const auto groups = read_groups(R"([{"where": "conv*", "freeze": true},
      {"where": {"kind": "norm"}, "weight_decay": 0}, {"where": "offset", "lr_scale": 0.1},
      {"where": "spare", "weight_decay": 0.75, "lr_scale": 2}])");
  Model before = model.clone();
  Optimizer optimizer(SgdOptions{.lr = 0.5, .momentum = 0, .weight_decay = 0.25},
                      optimized_parameters(model, groups, ""));
  for (const NamedTensor& tensor : model.tensors()) {
    if (tensor.role == TensorRole::kParameter && tensor.tensor.is_floating_point()) {
      tensor.tensor.mutable_grad() = at::ones_like(tensor.tensor);
    }
  }
  optimizer.step(0.5);
  const auto expect = [&](const std::string& name, double lr, double decay) {
    const at::Tensor w = before.tensor(name).detach();
    EXPECT_TRUE(at::allclose(model.tensor(name), w - lr * (1 + decay * w), 1e-6, 1e-6)) << name;
    EXPECT_EQ(lr == 0, model.tensor(name).equal(w)) << name;
  };
  expect("conv.weight", 0, 0);
  expect("conv.bias", 0, 0);
  expect("bn.weight", 0.25, 0);
  expect("bn.bias", 0.25, 0);
  expect("offset", 0.025, 0.25);
  expect("wte.weight", 0.25, 0.25);
  expect("spare", 0.5, 0.75);
}

}  // namespace
}  // namespace compress
