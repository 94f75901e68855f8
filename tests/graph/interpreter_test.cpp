// The interpreter computes what direct calls of ATen compute.

#include "compress/graph/interpreter.h"

#include "compress/error.h"
#include "compress/graph/scalar_ops.h"
#include "compress/graph/shapes.h"
#include "compress/graph/text.h"
#include "compress/model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace compress {
namespace {

using testing::ElementsAre;

Value* input(Model& model, const std::string& name, std::vector<Dim> sizes) {
  return model.graph().add_input(name, {c10::kFloat, std::move(sizes)});
}

// x [batch, 4] -> relu(x w^T + b), with w [3, 4].
Model small_linear() {
  Model model;
  at::manual_seed(1);
  Value* x = input(model, "x", {Dim("batch", 2), 4});
  Value* w = model.add_tensor("fc.weight", at::randn({3, 4}), TensorRole::kParameter);
  Value* b = model.add_tensor("fc.bias", at::randn({3}), TensorRole::kParameter);
  Node* linear =
      model.graph().append({.op = "aten::linear", .arguments = {x, w, b}, .module_path = "fc"});
  Node* relu = model.graph().append({.op = "aten::relu", .arguments = {linear->output()}});
  model.graph().set_outputs({{"out", relu->output()}});
  return model;
}

TEST(Interpreter, ComputesWhatDirectCallsCompute) {
  const Model model = small_linear();
  const at::Tensor x = at::randn({5, 4});
  const at::Tensor expected =
      at::relu(at::linear(x, model.tensor("fc.weight"), model.tensor("fc.bias")));
  EXPECT_TRUE(model.forward({x}).at(0).equal(expected));
}

TEST(Interpreter, LetsGradientsReachTheParameters) {
  Model model = small_linear();
  for (at::Tensor& parameter : model.parameters()) parameter.set_requires_grad(true);
  model.forward({at::ones({1, 4})}).at(0).sum().backward();
  EXPECT_TRUE(model.tensor("fc.weight").grad().defined());
}

TEST(Interpreter, RecomputesACachedWeightOnceItsTensorsChange) {
  Model model = small_linear();
  Value* w = model.graph().find("fc.weight");
  Node* linear = &model.graph().nodes().front();
  Value* mask =
      model.add_tensor("fc.weight_mask", at::ones({3, 4}, at::kBool), TensorRole::kBuffer);
  Node* mul = model.graph().insert(linear, {.op = "aten::mul.Tensor", .arguments = {w, mask}});
  model.graph().set_argument(linear, "weight", mul->output());
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::ones({1, 4});
  const at::Tensor dense = model.forward({x}).at(0).clone();
  EXPECT_TRUE(model.forward({x}).at(0).equal(dense));
  model.tensor("fc.weight_mask").zero_();  // in place
  EXPECT_TRUE(model.forward({x}).at(0).equal(at::relu(model.tensor("fc.bias")).unsqueeze(0)));
  model.set_tensor("fc.weight_mask", at::ones({3, 4}, at::kBool));  // another tensor
  EXPECT_TRUE(model.forward({x}).at(0).equal(dense));
  EXPECT_TRUE(evaluate(model, mul->output()).equal(model.tensor("fc.weight")));
}

TEST(Interpreter, UpdatesBuffersAfterTheRun) {
  Model model;
  Value* x = input(model, "x", {2});
  Value* counter = model.add_tensor("count", at::zeros({}, at::kLong), TensorRole::kBuffer);
  Node* add = model.graph().append({.op = "aten::add.Tensor", .arguments = {counter, 1}});
  model.graph().set_outputs({{"x", x}});
  model.graph().set_updates({{"count", add->output()}});
  model.forward({at::ones({2})});
  model.forward({at::ones({2})});
  EXPECT_EQ(model.tensor("count").item<int64_t>(), 2);
}

TEST(Interpreter, ComputesWithSizesListsAndNumbersInTensorPlaces) {
  Model model;
  Graph& graph = model.graph();
  Value* x = input(model, "x", {Dim("batch", 2), 6});
  Value* size = graph.append({.op = "aten::sym_size.int", .arguments = {x, 0}})->output();
  Value* twice =
      graph.insert_raw(nullptr, "scalar::mul", {size, 2}, {{"mul", ValueKind::kInt}})->output();
  Value* view =
      graph.append({.op = "aten::view", .arguments = {x, Argument::List{twice, -1}}})->output();
  Value* half = graph.append({.op = "aten::mul.Tensor", .arguments = {view, 0.5}})->output();
  Node* split =
      graph.append({.op = "aten::split.Tensor", .arguments = {half, 1, 1}, .list_size = 3});
  Value* back = graph.append({.op = "aten::cat", .arguments = {split->outputs(), 1}})->output();
  graph.set_outputs({{"out", back}});
  const at::Tensor given = at::randn({4, 6});
  EXPECT_TRUE(model.forward({given}).at(0).equal(given.view({8, 3}) * 0.5));
  EXPECT_EQ(model.forward({given}).at(0).scalar_type(), at::kFloat);
  propagate_shapes(model);
  EXPECT_THAT(*half->type.sizes, ElementsAre(Dim("2*batch", 4), Dim(3)));
  EXPECT_EQ(half->type.dtype, at::kFloat);
}

TEST(Interpreter, NamesTheNodeTheModuleAndTheShapesWhenAnOperatorFails) {
  const Model model = small_linear();
  try {
    model.forward({at::ones({2, 5})});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("node `linear` of module `fc`"));
    EXPECT_THAT(error.what(), testing::HasSubstr("input: Float[2,5]"));
    EXPECT_THAT(error.what(), testing::HasSubstr("weight: Float[3,4]"));
  }
  EXPECT_THROW(model.forward({}), Error);
}

// x [3, 2, 5] through two layers of 4: LibTorch's own kernels would go beyond the ends of what they
// are given.
std::string recurrent(const std::string& op, const std::string& states, int gates,
                      const std::string& bias = "") {
  const std::string rows = std::to_string(gates * 4);
  return "input x : f32[3,2,5]\ninput h : f32[" + states + "]\n" + "parameter a : f32[" + rows +
         ",5]\nparameter b : f32[" + rows + ",4]\n" + "parameter c : f32[" + rows +
         ",4]\nparameter d : f32[" + rows + ",4]\n" + "parameter e : f32[" +
         (bias.empty() ? rows : bias) + "]\n" + (gates == 4 ? "y, n, m = " : "y, n = ") +
         "aten::" + op + ".input(x, " + (gates == 4 ? "[h, h]" : "h") +
         ", [a, b, e, e, c, d, e, e], true, 2, 0.0, false, false, false) @ rnn\nreturn y = y\n";
}

at::Tensor run_recurrent(const std::string& text, at::IntArrayRef state, int64_t features = 5) {
  Model model = parse_model(text);
  for (NamedTensor& tensor : model.mutable_tensors()) {
    std::vector<int64_t> sizes;
    for (const Dim& dim : *model.graph().find(tensor.name)->type.sizes) sizes.push_back(dim.size);
    tensor.tensor = at::full(sizes, 0.1);
  }
  return model.forward({at::ones({3, 2, features}), at::zeros(state)}).at(0);
}

TEST(Interpreter, RefusesARecurrentLayerWhoseOperandsDoNotFit) {
  struct Case {
    const char* op;
    int gates;
  };
  for (const auto& [op, gates] : {Case{"lstm", 4}, Case{"gru", 3}, Case{"rnn_tanh", 1}}) {
    const std::string text = recurrent(op, "2,2,4", gates);
    const at::Tensor y = run_recurrent(text, {2, 2, 4});
    EXPECT_THAT(y.sizes(), ElementsAre(3, 2, 4)) << op;
    EXPECT_TRUE(y.isfinite().all().item<bool>()) << op;
    const auto refusal = [&](const std::string& graph, at::IntArrayRef state, int64_t features) {
      try {
        run_recurrent(graph, state, features);
      } catch (const Error& error) {
        return std::string(error.what());
      }
      return std::string("ran");
    };
    EXPECT_THAT(refusal(text, {2, 2, 4000}, 5),
                testing::AllOf(testing::HasSubstr("node `y` of module `rnn`"),
                               testing::HasSubstr("sizes [2, 2, 4000], expected [2, 2, 4]")));
    EXPECT_THAT(refusal(text, {2, 1, 4}, 5), testing::HasSubstr("expected [2, 2, 4]"));
    EXPECT_THAT(refusal(text, {1, 2, 4}, 5), testing::HasSubstr("expected [2, 2, 4]"));
    EXPECT_THAT(refusal(text, {2, 2, 4}, 4000), testing::HasSubstr("parameter 0 has sizes"));
    EXPECT_THAT(refusal(recurrent(op, "2,2,4", gates, "1"), {2, 2, 4}, 5),
                testing::HasSubstr("parameter 2 has sizes [1]"));
  }
}

TEST(Interpreter, KeepsBuffersWhenShapesArePropagatedInTrainingMode) {
  Model model;
  Graph& graph = model.graph();
  Value* x = input(model, "x", {Dim("batch", 2), 2, 4, 4});
  Value* mean = model.add_tensor("bn.running_mean", at::full({2}, 3.0), TensorRole::kBuffer);
  Value* var = model.add_tensor("bn.running_var", at::full({2}, 5.0), TensorRole::kBuffer);
  Node* norm =
      graph.append({.op = "aten::batch_norm",
                    .arguments = {x, Argument(), Argument(), mean, var, true, 0.1, 1e-5, false}});
  graph.set_outputs({{"out", norm->output()}});
  propagate_shapes(model);
  EXPECT_TRUE(model.tensor("bn.running_mean").equal(at::full({2}, 3.0)));
  model.forward({at::zeros({2, 2, 4, 4})});
  EXPECT_NEAR(model.tensor("bn.running_mean")[0].item<double>(), 2.7, 1e-6);
  model.eval();
  model.forward({at::zeros({2, 2, 4, 4})});
  EXPECT_NEAR(model.tensor("bn.running_mean")[0].item<double>(), 2.7, 1e-6);
}

TEST(ScalarOps, FollowPythonsRules) {
  using c10::IValue;
  EXPECT_EQ(apply_scalar_op("scalar::floordiv", {IValue(-7), IValue(2)}).toInt(), -4);
  EXPECT_EQ(apply_scalar_op("scalar::mod", {IValue(-7), IValue(2)}).toInt(), 1);
  EXPECT_EQ(apply_scalar_op("scalar::truediv", {IValue(1), IValue(2)}).toDouble(), 0.5);
  EXPECT_EQ(apply_scalar_op("scalar::pow", {IValue(2), IValue(10)}).toInt(), 1024);
  EXPECT_EQ(apply_scalar_op("scalar::max", {IValue(2), IValue(2.5)}).toDouble(), 2.5);
  EXPECT_THROW(apply_scalar_op("scalar::floordiv", {IValue(1), IValue(0)}), Error);
  EXPECT_THROW(apply_scalar_op("scalar::unheard_of", {IValue(1)}), Error);
}

}  // namespace
}  // namespace compress
