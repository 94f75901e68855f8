// In-place operators made functional: the aliases that would give a careless rewrite away.

#include "compress/error.h"
#include "compress/graph/functionalize.h"
#include "compress/graph/size_expression.h"
#include "compress/graph/text.h"
#include "compress/graph/verify.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace compress {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

Model functional(const std::string& text) {
  Model model = parse_model(text);
  functionalize(model);
  return model;
}

// The model's outputs on x = [[1, 2], [3, 4]].
std::vector<at::Tensor> run(const std::string& text) {
  const at::NoGradGuard no_grad;
  return functional(text).forward({at::tensor({1.0F, 2.0F, 3.0F, 4.0F}).view({2, 2})});
}

std::vector<float> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

void expect_refusal(const std::string& text, const std::string& part) {
  try {
    functional(text);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

TEST(Functionalize, RenamesWhereNobodySeesTheDifference) {
  const Model model = functional(
      "input x : f32[2,2]\n"
      "y = aten::neg(x) : f32[2,2]\n"
      "z = aten::relu_(y) : f32[2,2]\n"
      "return y = z\n");
  EXPECT_THAT(print(model), HasSubstr("z = aten::relu(y)"));
  EXPECT_TRUE(problems(model).empty());
}

TEST(Functionalize, ReadersOfTheOldNameSeeTheChange) {
  const auto outputs =
      run("input x : f32[2,2]\n"
          "y = aten::neg(x) : f32[2,2]\n"
          "before = aten::mul.Tensor(y, 1) : f32[2,2]\n"
          "z = aten::add_.Scalar(y, 10) : f32[2,2]\n"
          "return y = y\nreturn before = before\n");
  EXPECT_EQ(values(outputs[0]), (std::vector<float>{9, 8, 7, 6}));
  EXPECT_EQ(values(outputs[1]), (std::vector<float>{-1, -2, -3, -4}));
}

TEST(Functionalize, AChangeOfAViewReachesItsBase) {
  const auto outputs =
      run("input x : f32[2,2]\n"
          "y = aten::neg(x) : f32[2,2]\n"
          "row = aten::select.int(y, 0, 1) : f32[2]\n"
          "zero = aten::zero_(row) : f32[2]\n"
          "return y = y\nreturn row = row\n");
  EXPECT_EQ(values(outputs[0]), (std::vector<float>{-1, -2, 0, 0}));
  EXPECT_EQ(values(outputs[1]), (std::vector<float>{0, 0}));
}

TEST(Functionalize, AChangeOfTheBaseReachesItsViews) {
  const auto outputs =
      run("input x : f32[2,2]\n"
          "y = aten::neg(x) : f32[2,2]\n"
          "t = aten::t(y) : f32[2,2]\n"
          "z = aten::mul_.Scalar(y, 2) : f32[2,2]\n"
          "return t = t\n");
  EXPECT_EQ(values(outputs[0]), (std::vector<float>{-2, -6, -4, -8}));
}

TEST(Functionalize, AChangeOfAViewReachesItsSiblingsThroughTransposesAndPieces) {
  const auto outputs =
      run("input x : f32[2,2]\n"
          "y = aten::neg(x) : f32[2,2]\n"
          "flat = aten::view(y, [4]) : f32[4]\n"
          "t = aten::permute(y, [1, 0]) : f32[2,2]\n"
          "a, b = aten::split.Tensor(t, 1) : f32[1,2], f32[1,2]\n"
          "z = aten::fill_.Scalar(b, 5) : f32[1,2]\n"
          "w = aten::add_.Scalar(z, 1) : f32[1,2]\n"
          "return flat = flat\nreturn a = a\nreturn y = y\n");
  EXPECT_EQ(values(outputs[0]), (std::vector<float>{-1, 6, -3, 6}));
  EXPECT_EQ(values(outputs[1]), (std::vector<float>{-1, -3}));
  EXPECT_EQ(values(outputs[2]), (std::vector<float>{-1, 6, -3, 6}));
}

TEST(Functionalize, KeepsTheDtypeOfTheChangedTensor) {
  const Model model = functional(
      "input x : f16[2]\ninput b : f32[2]\n"
      "y = aten::neg(x) : f16[2]\n"
      "z = aten::add_.Tensor(y, b) : f16[2]\n"
      "return z = z\n");
  const auto outputs =
      model.forward({at::tensor({1.0F, 2.0F}).to(at::kHalf), at::tensor({1.0F, 1.0F})});
  EXPECT_EQ(outputs[0].scalar_type(), at::kHalf);
}

TEST(Functionalize, TurnsAChangedBufferIntoAnUpdate) {
  const Model model = functional(
      "input x : f32[2,2]\nbuffer count : f32[1] = [3]\n"
      "c = aten::add_.Scalar(count, 1) : f32[1]\n"
      "y = aten::mul.Tensor(x, count) : f32[2,2]\n"
      "return y = y\n");
  ASSERT_EQ(model.graph().updates().size(), 1U);
  const auto outputs = model.forward({at::tensor({1.0F, 2.0F, 3.0F, 4.0F}).view({2, 2})});
  EXPECT_EQ(values(outputs[0]), (std::vector<float>{4, 8, 12, 16}));
  EXPECT_EQ(values(model.tensor("count")), (std::vector<float>{4}));
}

TEST(Functionalize, LeavesTheCallersInputAloneAndSaysSo) {
  const Model model =
      functional("input x : f32[2]\ny = aten::add_.Scalar(x, 1) : f32[2]\nreturn x = x\n");
  const at::Tensor x = at::tensor({1.0F, 2.0F});
  EXPECT_EQ(values(model.forward({x})[0]), (std::vector<float>{2, 3}));
  EXPECT_EQ(values(x), (std::vector<float>{1, 2}));
  EXPECT_THAT(model.notes, Contains(HasSubstr("`x`")));
}

TEST(Functionalize, RefusesAChangeBehindWhatMayOrMayNotCopy) {
  expect_refusal(
      "input x : f32[2,2]\n"
      "y = aten::neg(x) : f32[2,2]\n"
      "r = aten::reshape(y, [4]) : f32[4]\n"
      "z = aten::relu_(r) : f32[4]\n"
      "return y = y\nreturn z = z\n",
      "`y` may share its memory");
}

TEST(Functionalize, AllowsItWhereNobodyLooksAfterwards) {
  const auto outputs =
      run("input x : f32[2,2]\n"
          "y = aten::neg(x) : f32[2,2]\n"
          "r = aten::reshape(y, [4]) : f32[4]\n"
          "z = aten::add_.Scalar(r, 10) : f32[4]\n"
          "return z = z\n");
  EXPECT_EQ(values(outputs[0]), (std::vector<float>{9, 8, 7, 6}));
}

TEST(Functionalize, RefusesToOverwriteAParameter) {
  expect_refusal(
      "input x : f32[1]\nparameter w : f32[1] = [1]\n"
      "z = aten::add_.Tensor(w, x) : f32[1]\nreturn z = z\n",
      "the parameter `w`");
}

TEST(SizeExpression, ReadsBothSpellingsAndPrintsEach) {
  const auto sympy = parse_size_expression(
      "Add(Mul(Integer(4), Symbol('s77', positive=True, integer=True)), Integer(-1))");
  ASSERT_TRUE(sympy);
  EXPECT_EQ(print_readable(*sympy), "4*s77-1");
  EXPECT_EQ(parse_size_expression("4*s77 - 1"), sympy);
  EXPECT_EQ(print_sympy(*sympy),
            "Add(Mul(Integer(4), Symbol('s77', positive=True, integer=True)), Integer(-1))");
  const auto floor =
      parse_size_expression("FloorDiv(Add(Symbol('s0', integer=True), Integer(1)), Integer(2))");
  ASSERT_TRUE(floor);
  EXPECT_EQ(print_readable(*floor), "(s0+1)//2");
  EXPECT_EQ(evaluate(*floor, [](const std::string&) { return 6; }), 3);
}

TEST(SizeExpression, RefusesWhatIsNone) {
  for (const char* text :
       {"", "(", "4*", "Symbol(", "a b", "1.5", "f(,)", "99999999999999999999"}) {
    EXPECT_FALSE(parse_size_expression(text)) << text;
  }
  EXPECT_FALSE(parse_size_expression(std::string(100000, '(')));
  EXPECT_FALSE(parse_size_expression(std::string(100000, '-')));
}

}  // namespace
}  // namespace compress
