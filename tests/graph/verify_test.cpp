// Every kind of malformed model is named; well-formed ones pass.

#include "compress/graph/verify.h"

#include "compress/error.h"
#include "compress/graph/text.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kGood =
    "input x : f32[batch,3,8,8]\n"
    "parameter conv.weight alias other.weight : f32[4,3,3,3]\n"
    "buffer count : i64[] = 0\n"
    "conv = aten::conv2d(x, conv.weight, none, [1, 1], [1, 1]) : f32[batch,4,8,8]\n"
    "a, b = aten::split.Tensor(conv, 2, 1) : f32[batch,2,8,8], f32[batch,2,8,8]\n"
    "n = aten::sym_size.int(x, 0) : int\n"
    "m = scalar::mul(n, 2) : int\n"
    "view = aten::view(a, [n, -1]) : f32[batch,128]\n"
    "add = aten::add.Tensor(count, 1) : i64[]\n"
    "return output = view\n"
    "return other = b\n"
    "return size = m\n"
    "update count = add\n";

Model good() { return testing::parse_filled(kGood); }

// A call of relu; the other fields keep their defaults.
Graph::Call relu(Value* value) {
  Graph::Call call;
  call.op = "aten::relu";
  call.arguments = {value};
  return call;
}

Node* node_of(Model& model, const std::string& value) {
  return model.graph().find(value)->producer();
}

TEST(Verify, AcceptsAWellFormedModel) {
  const Model model = good();
  EXPECT_THAT(problems(model), IsEmpty());
  EXPECT_THAT(problems(model, {.shapes = true}), IsEmpty());
  EXPECT_NO_THROW(verify(model));
  EXPECT_THAT(problems(Model()), IsEmpty());
}

TEST(Verify, ThrowsOneErrorWithAllProblems) {
  Model model = good();
  model.graph().set_outputs({{"o", Argument()}, {"o", Argument()}});
  model.graph().set_updates({{"nothing", Argument()}});
  try {
    verify(model);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kRunFailed);
    EXPECT_THAT(error.message(), HasSubstr("two outputs have the name `o`"));
    EXPECT_THAT(error.message(), HasSubstr("the update `nothing` names no tensor"));
  }
}

TEST(Verify, FindsAUseBeforeTheDefinition) {
  Model model = good();
  Value* view = model.graph().find("view");
  model.graph().insert(node_of(model, "conv"), relu(view));
  EXPECT_THAT(problems(model),
              ElementsAre("`relu` (aten::relu) uses `view`, which is computed later"));
}

TEST(Verify, FindsAUseOfAnotherGraphsValue) {
  Model model = good();
  const Model other = good();
  Value* foreign = other.graph().find("x");
  model.graph().append(relu(foreign));
  model.graph().set_updates({{"count", foreign}});
  EXPECT_THAT(problems(model),
              ElementsAre("`relu` (aten::relu) uses a value that is not in the graph",
                          "update `count` uses a value that is not in the graph"));
}

TEST(Verify, FindsArgumentsThatDoNotFitTheSchema) {
  const auto with = [](const char* argument, Argument value) {
    Model model = good();
    model.graph().set_argument(node_of(model, "conv"), argument, std::move(value));
    return problems(model);
  };
  EXPECT_THAT(
      with("groups", 1.5),
      ElementsAre("`conv` (aten::conv2d): argument `groups` is the float 1.5, expected int"));
  EXPECT_THAT(with("groups", Argument()), ElementsAre(HasSubstr("`groups` is none")));
  EXPECT_THAT(with("input", Argument()), ElementsAre(HasSubstr("`input` is none")));
  EXPECT_THAT(with("bias", "text"), ElementsAre(HasSubstr("`bias` is \"text\"")));
  EXPECT_THAT(with("stride", 1), ElementsAre(HasSubstr("`stride` is 1")));
  EXPECT_THAT(with("stride", std::vector<int64_t>{1, 1, 1}),
              ElementsAre(HasSubstr("`stride` is a list of 3, expected")));
  EXPECT_THAT(with("stride", Argument::List{1, 2.5}), ElementsAre(HasSubstr("`stride`")));
  EXPECT_THAT(with("stride", std::vector<int64_t>{1}), IsEmpty());
}

TEST(Verify, FindsATensorWhereANumberBelongs) {
  Model model = good();
  Value* x = model.graph().find("x");
  model.graph().set_argument(node_of(model, "view"), "size", Argument::List{x, -1});
  EXPECT_THAT(problems(model), ElementsAre(HasSubstr("argument `size` is a list of 2")));
}

TEST(Verify, AcceptsEnumsNumbersAndNoneWhereTheyBelong) {
  const Model model = parse_model(
      "input x : f32[2,3,4,4]\n"
      "a = aten::to.dtype(x, f16, memory_format=channels_last)\n"
      "b = aten::mul.Tensor(x, 2)\n"
      "c = aten::dropout(b, 0, false)\n"
      "d = aten::clamp(c, none, 6.0)\n"
      "e = aten::zeros([2, 2], dtype=f32, layout=strided, device=cpu)\n"
      "f = aten::index.Tensor(d, [none, e])\n"
      "g = aten::max_pool2d(d, [2, 2])\n"
      "h = aten::gelu(g, approximate=\"tanh\")\n"
      "return a = a\nreturn f = f\nreturn h = h\n");
  EXPECT_THAT(problems(model), IsEmpty());
}

TEST(Verify, FindsAWrongNumberOfArgumentsOrOutputs) {
  Model model = good();
  Value* x = model.graph().find("x");
  model.graph().insert_raw(nullptr, "aten::relu", {x, x},
                           {{"r", ValueKind::kTensor}, {"s", ValueKind::kTensor}});
  EXPECT_THAT(problems(model), ElementsAre("`r` (aten::relu) has 2 arguments, expected 1",
                                           "`r` (aten::relu) has 2 outputs, expected 1"));
}

TEST(Verify, FindsAResultOfTheWrongKind) {
  const Model model =
      parse_model("input x : f32[2]\nn = aten::sym_size.int(x, 0) : f32[]\nreturn n = n\n");
  EXPECT_THAT(problems(model),
              ElementsAre("`n` (aten::sym_size.int): `n` is of kind tensor, expected int"));
}

TEST(Verify, FindsAnOrphanTensor) {
  Model model = good();
  model.add_tensor("orphan", at::zeros({2}), TensorRole::kParameter);
  EXPECT_THAT(problems(model), ElementsAre("nothing uses the tensor `orphan`"));
}

TEST(Verify, AllowsAnOrphanTensorWhereThatIsSaid) {
  Model model = good();
  model.add_tensor("orphan", at::zeros({2}), TensorRole::kBuffer);
  EXPECT_THAT(problems(model, {.unused = false}), IsEmpty());
}

TEST(Verify, CountsAnUpdateAsUseOfItsBuffer) {
  const Model model = parse_model(
      "input x : f32[2]\nbuffer seen : f32[2] = [0, 0]\nreturn x = x\nupdate seen = x\n");
  EXPECT_THAT(problems(model), IsEmpty());
}

TEST(Verify, FindsATensorThatTheModelLacks) {
  Model model = good();
  Value* ghost = model.graph().add_named_tensor("ghost", {});
  model.graph().append(relu(ghost));
  EXPECT_THAT(problems(model), ElementsAre("the model has no tensor `ghost`"));
}

TEST(Verify, FindsATypeThatDiffersFromTheTensor) {
  Model model = good();
  model.graph().find("count")->type.dtype = at::kInt;
  EXPECT_THAT(problems(model),
              ElementsAre("the tensor `count` is i64[], but the graph says i32[]"));
  model = good();
  model.graph().find("conv.weight")->type.sizes->at(0) = 8;
  EXPECT_THAT(problems(model), ElementsAre("the tensor `conv.weight` is f32[4,3,3,3], but the "
                                           "graph says f32[8,3,3,3]"));
}

TEST(Verify, FindsTiesThatDoNotHold) {
  Model model = good();
  model.find_tensor("count")->aliases = {"other.weight", "conv"};
  EXPECT_THAT(problems(model),
              ElementsAre("two tensors have the alias `other.weight`",
                          "the tensor `count` cannot be found by its alias `other.weight`",
                          "the alias `conv` of `count` is also the name of a value",
                          "the tensor `count` cannot be found by its alias `conv`"));
}

TEST(Verify, FindsAnUpdateOfAParameter) {
  Model model = good();
  model.graph().set_updates(
      {{"count", model.graph().find("add")}, {"conv.weight", model.graph().find("conv.weight")}});
  EXPECT_THAT(problems(model),
              ElementsAre("the update `conv.weight` names a parameter, expected a buffer"));
}

TEST(Verify, FindsTypesThatTheRunContradicts) {
  Model model = good();
  model.graph().find("conv")->type.sizes->at(1) = 5;
  model.graph().find("add")->type.dtype = at::kFloat;
  EXPECT_THAT(problems(model), IsEmpty());
  EXPECT_THAT(
      problems(model, {.shapes = true}),
      ElementsAre(HasSubstr("`conv` (aten::conv2d) is f32[batch,4,8,8], but the graph says "
                            "f32[batch,5,8,8]"),
                  HasSubstr("`add` (aten::add.Tensor) is i64[], but the graph says f32[]")));
}

TEST(Verify, FindsShapesThatDoNotFitTogether) {
  Model model = good();
  model.set_tensor("conv.weight", at::zeros({4, 2, 3, 3}));
  EXPECT_THAT(problems(model), IsEmpty());
  EXPECT_THAT(problems(model, {.shapes = true}), ElementsAre(HasSubstr("shapes cannot be found")));
}

TEST(Verify, SaysThatContentsAreMissing) {
  EXPECT_THAT(problems(parse_model(kGood), {.shapes = true}),
              ElementsAre("shapes cannot be found: `conv.weight` has no contents"));
}

}  // namespace
}  // namespace compress
