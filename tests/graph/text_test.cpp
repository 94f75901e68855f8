// The text form: what is written is read back, and mistakes are named where they stand.

#include "compress/graph/text.h"

#include "compress/error.h"
#include "compress/graph/digest.h"
#include "compress/graph/verify.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <random>
#include <string>

namespace compress {
namespace {

using ::testing::HasSubstr;

void expect_stable(const std::string& text) { EXPECT_EQ(print(parse_model(text)), text); }

// The text after one round; what is not canonical shows as a difference to the expectation.
std::string canonical(const std::string& text) { return print(parse_model(text)); }

TEST(Text, KeepsAModelOfEveryFeature) {
  expect_stable(
      "input x : f32[batch,3,32,32]\n"
      "input n : int\n"
      "parameter conv1.weight : f32[16,3,3,3] = #c0ffee0123456789c0ffee0123456789\n"
      "parameter encoder.weight alias decoder.weight, head.weight : f32[2,2] = [[1, -4], [3, -2]]\n"
      "buffer bn1.running_mean : f32[2] = [0, 0.1]\n"
      "buffer counter : i64[] = 3\n"
      "constant later : bf16[4*s77,Max(1, s0)]\n"
      "conv2d = aten::conv2d(x, conv1.weight, none, [1, 1], [1, 1]) : f32[batch,16,32,32] @ "
      "layer1.0.conv1\n"
      "split, split_1 = aten::split.Tensor(conv2d, 8, 1) : f32[batch,8,32,32], f32[batch,8,32,32]\n"
      "sym_size = aten::sym_size.int(x, 0) : int\n"
      "mul = scalar::mul(sym_size, n) : int\n"
      "view = aten::view(split, [mul, -1]) : f32[batch,?]\n"
      "cat = aten::cat([split, split_1], 1) @ 0\n"
      "to = aten::to.dtype(cat, f16)\n"
      "add = aten::add.Tensor(counter, counter, alpha=2)\n"
      "return output = view\n"
      "return features = to\n"
      "return nothing = none\n"
      "update counter = add\n");
}

TEST(Text, KeepsEveryKindOfConstant) {
  expect_stable(
      "input x : f32[2,3,4,4]\n"
      "y = custom::op(x, none, true, false, 1, -1, 1.0, 0.1, 1e-05, 1e+20, inf, -inf, nan, "
      "\"a \\\"quoted\\\" text\\n\", f32, bf16, f8_e4m3fn, QInt8, strided, sparse_coo, "
      "channels_last, "
      "contiguous_format, cpu, cuda:1, [], [1, 2], [[x, none], [true]])\n"
      "return output = y\n");
}

TEST(Text, LeavesOutTrailingDefaultsAndFillsThemIn) {
  const Model model = parse_model(
      "input x : f32[1,3,8,8]\n"
      "w : f32[4,3,3,3]\n"
      "y = aten::conv2d(x, w)\n"
      "z = aten::conv2d(x, w, none, 2, [0, 0], [1, 1], 1)\n"
      "u = aten::conv2d(x, w, padding=[1, 1])\n"
      "return y = y\nreturn z = z\nreturn u = u\n");
  const Node& first = model.graph().nodes().front();
  ASSERT_EQ(first.arguments().size(), 7u);
  EXPECT_EQ(first.argument("stride").ints(), (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(first.argument("groups").as<int64_t>(), 1);
  EXPECT_THAT(print(model), HasSubstr("y = aten::conv2d(x, w)\n"));
  EXPECT_THAT(print(model), HasSubstr("z = aten::conv2d(x, w, none, [2, 2])\n"));
  EXPECT_THAT(print(model), HasSubstr("u = aten::conv2d(x, w, none, [1, 1], [1, 1])\n"));
}

TEST(Text, QuotesNamesThatAreNoPlainWords) {
  expect_stable(
      "input %\"123\" : f32[2]\n"
      "input /layer1/Conv_output_0 : f32[2]\n"
      "input %\"cpu\" : f32[2]\n"
      "input %\"onnx::Add_1\" : f32[2]\n"
      "input %\"gr\xC3\xBC\xC3\x9F \\\"e\\\"\" : f32[2]\n"
      "parameter 0.weight : f32[1] = [1]\n"
      "input = aten::add.Tensor(%\"123\", %\"cpu\")\n"
      "return = aten::add.Tensor(input, 0.weight)\n"
      "alias = aten::alias(return)\n"
      "return %\"1\" = alias\n"
      "return %\"f32\" = %\"onnx::Add_1\"\n");
}

TEST(Text, ReadsABareTensorSet) {
  const Model model = parse_model("fc.weight : f32[2,2] = [[1, -4], [3, -2]]");
  ASSERT_EQ(model.tensors().size(), 1u);
  const NamedTensor& weight = model.tensors().front();
  EXPECT_EQ(weight.role, TensorRole::kParameter);
  EXPECT_TRUE(at::equal(weight.tensor, at::tensor({1.f, -4.f, 3.f, -2.f}).view({2, 2})));
  ASSERT_EQ(model.graph().outputs().size(), 1u);
  EXPECT_EQ(model.graph().outputs()[0].name, "fc.weight");
  EXPECT_EQ(model.graph().outputs()[0].value.value(), model.graph().find("fc.weight"));
  EXPECT_EQ(print(model), "parameter fc.weight : f32[2,2] = [[1, -4], [3, -2]]\n");
  EXPECT_TRUE(problems(model).empty());
}

TEST(Text, WritesReturnsOfASetThatLacksATensor) {
  Model model = parse_model("a : f32[] = 1\nb : f32[] = 2");
  model.graph().set_outputs({{"a", model.graph().find("a")}, {"c", model.graph().find("b")}});
  expect_stable(print(model));
  EXPECT_THAT(print(model), HasSubstr("return c = b\n"));
}

TEST(Text, KeepsElementsOfEveryRealDtype) {
  expect_stable(
      "parameter a_f64 : f64[2] = [0.1, 1e+300]\n"
      "parameter a_f32 : f32[5] = [0.1, -0, inf, nan, 1e-45]\n"
      "parameter a_f16 : f16[4] = [0.1, 65504, 6e-08, -inf]\n"
      "parameter a_bf16 : bf16[2] = [0.1, 3.39e+38]\n"
      "parameter e4 : f8_e4m3fn[3] = [0.1, 448, -0.002]\n"
      "parameter e5 : f8_e5m2[2] = [0.09, inf]\n"
      "parameter e8 : f8_e8m0fnu[3] = [0.5, 1, 1024]\n"
      "buffer a_i8 : i8[2] = [-128, 127]\n"
      "buffer a_u8 : u8[1] = [255]\n"
      "buffer a_i64 : i64[2] = [-9223372036854775808, 9223372036854775807]\n"
      "buffer a_u64 : u64[1] = [18446744073709551615]\n"
      "buffer a_bool : bool[1,2] = [[true, false]]\n"
      "buffer scalar : i32[] = 7\n"
      "buffer empty : f32[0,1000000] = []\n"
      "buffer empty_too : f32[3,0] = []\n");
}

TEST(Text, WritesTheNearestHalfShortly) {
  Model model;
  model.add_tensor("w", at::tensor({0.1f, 1.f / 3, 1024.5f}).to(at::kHalf), TensorRole::kParameter);
  EXPECT_THAT(print(model), HasSubstr("= [0.1, 0.3333, 1024]\n"));
  const at::Tensor back = parse_model(print(model)).tensor("w");
  EXPECT_TRUE(at::equal(back, model.tensor("w")));
}

TEST(Text, WritesLargerTensorsAsDigest) {
  Model model;
  model.add_tensor("w", at::arange(9, at::kFloat), TensorRole::kParameter);
  model.graph().set_outputs({{"w", model.graph().find("w")}});
  const std::string text = print(model);
  EXPECT_EQ(text, "parameter w : f32[9] = #" + tensor_digest(model.tensor("w")) + "\n");
  const Model back = parse_model(text);
  EXPECT_FALSE(back.tensor("w").defined());
  EXPECT_EQ(back.tensors().front().digest, tensor_digest(model.tensor("w")));
  EXPECT_EQ(print(back), text);
  EXPECT_EQ(print(back.clone()), text);
}

TEST(Text, FollowsItsOptions) {
  const Model model = parse_model(
      "input x : f32[b,2]\nw : f32[2,2] = [[1, 2], [3, 4]]\n"
      "y = aten::linear(x, w) : f32[b,2] @ fc\nreturn y = y\n");
  EXPECT_EQ(print(model, {.types = false, .contents = false}),
            "input x : f32[b,2]\nparameter w : f32[2,2]\ny = aten::linear(x, w) @ fc\n"
            "return y = y\n");
  EXPECT_EQ(print(model, {.tensors = false}),
            "input x : f32[b,2]\ny = aten::linear(x, w) : f32[b,2] @ fc\nreturn y = y\n");
  EXPECT_EQ(print(model.graph().nodes().front()), "y = aten::linear(x, w) : f32[b,2] @ fc");
}

TEST(Text, InfersTheKindsOfResultsWithoutTypes) {
  const Model model = parse_model(
      "input x : f32[b,2]\n"
      "n = aten::sym_size.int(x, 0)\nhalf = scalar::truediv(n, 2)\ntwice = scalar::mul(half, 2)\n"
      "more = scalar::add(n, 1)\nis_big = scalar::gt(n, 8)\nreturn x = x\n");
  EXPECT_EQ(model.graph().find("n")->kind(), ValueKind::kInt);
  EXPECT_EQ(model.graph().find("half")->kind(), ValueKind::kFloat);
  EXPECT_EQ(model.graph().find("twice")->kind(), ValueKind::kFloat);
  EXPECT_EQ(model.graph().find("more")->kind(), ValueKind::kInt);
  EXPECT_EQ(model.graph().find("is_big")->kind(), ValueKind::kBool);
}

TEST(Text, AcceptsCommentsBlankLinesAndBrokenLists) {
  EXPECT_EQ(canonical("# a comment\n\n   w:f32[ 2 , 2 ]= [[1,2],\r\n  [3,4]]  # trailing\n\n"),
            "parameter w : f32[2,2] = [[1, 2], [3, 4]]\n");
}

TEST(Text, KeepsNodesWithoutOutputs) {
  expect_stable("input x : f32[2]\naten::_assert_async(x)\nreturn x = x\n");
}

TEST(Text, KeepsAnEmptyModel) { expect_stable(""); }

struct Mistake {
  std::string text, where, message;
};

class TextMistake : public ::testing::TestWithParam<Mistake> {};

TEST_P(TextMistake, IsNamedWhereItStands) {
  try {
    parse_model(GetParam().text);
    FAIL() << "accepted " << GetParam().text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadFile);
    EXPECT_EQ(error.where(), GetParam().where);
    EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, TextMistake,
    ::testing::Values(
        Mistake{"input x : f32[2]\ny = aten::relu(xx)\n", "line 2, column 16",
                "found `xx`, expected a constant or a value defined above (did you mean `x`?)"},
        Mistake{"input x : f32[2\n", "line 1, column 14", "found `[` without its `]`"},
        Mistake{"input x : f33[2]\n", "line 1, column 11", "found `f33`, expected a dtype"},
        Mistake{"input x : f32[-2]\n", "line 1, column 14", "found the size `-2`"},
        Mistake{"input x : f32[99999999999999999999]", "line 1, column 14", "found the size"},
        Mistake{"w : f32[4294967296,4294967296] = []", "line 1, column 8", "does not fit 64 bits"},
        Mistake{"w : f32[2] = [1, 2, 3]", "line 1, column 14",
                "found a list of 3 in dimension 0, expected 2"},
        Mistake{"w : f32[2] = [1, x]", "line 1, column 18", "expected an element of dtype f32"},
        Mistake{"w : i8[1] = [128]", "line 1, column 14", "expected an element of dtype i8"},
        Mistake{"w : f16[1] = [70000]", "line 1, column 15", "expected an element of dtype f16"},
        Mistake{"w : c64[1] = [1]", "line 1, column 14", "expected a digest"},
        Mistake{"w : f32[n] = [1]", "line 1, column 5", "sizes that are numbers"},
        Mistake{"w : f32[1] = #", "line 1, column 15", "end of the"},
        Mistake{"w : int", "line 1, column 5", "found the type of a number"},
        Mistake{"w : f32[]\nw : f32[]", "line 2, column 1", "defined above already"},
        Mistake{"a alias b : f32[]\nb : f32[]", "line 2, column 1", "defined above already"},
        Mistake{"input x : f32[2]\ny = aten::rleu(x)", "line 2, column 5",
                "no operator `aten::rleu`"},
        Mistake{"input x : f32[2]\ny = aten::relu()", "line 2, column 5", "`self` is missing"},
        Mistake{"input x : f32[2]\ny = aten::relu(x, x)", "line 2, column 5", "2 arguments given"},
        Mistake{"input x : f32[2]\ny = aten::add.Tensor(x, x, alhpa=2)", "line 2, column 5",
                "did you mean `alpha`?"},
        Mistake{"input x : f32[2]\ny, z = aten::relu(x)", "line 2, column 8", "2 names for the 1"},
        Mistake{"input x : f32[2]\ny = aten::relu(x) : f32[2], f32[2]", "line 2, column 27",
                "found `,`, expected the end of the line"},
        Mistake{"input x : f32[2]\ny = aten::relu(x", "line 2, column 17",
                "found the end of the text, expected `,` or `)`"},
        Mistake{"y = relu(1)", "line 1, column 5", "expected an operator such as"},
        Mistake{"y = 1", "line 1, column 6", "found the end of the text, expected `(`"},
        Mistake{"y = c::f(99999999999999999999)", "line 1, column 10", "at most 64 bits"},
        Mistake{"y = c::f(\"abc", "line 1, column 10", "without its closing quote"},
        Mistake{"y = c::f(\"\\ud800\")", "line 1, column 11", "surrogate"},
        Mistake{"y = c::f(\"\\x\")", "line 1, column 11", "escape"},
        Mistake{"return a = 1\nreturn a = 2", "line 2, column 8", "`a` is given twice"},
        Mistake{"fancy x : f32[]", "line 1, column 1", "found `fancy` in front of a name"},
        Mistake{"%\"\" : f32[]", "line 1, column 1", "empty name"},
        Mistake{"w : f32[2] = [1, \xC3\xBC]", "line 1, column 18", "the byte 0xc3"},
        Mistake{"y = c::f(" + std::string(100000, '[') + ")", "line 1, column 42",
                "nested too deeply"}));

TEST(Text, RefusesTensorsOfAbsurdRank) {
  std::string dims = "1";
  for (int i = 0; i < 100000; ++i) dims += ",1";
  EXPECT_THROW(parse_model("w : f32[" + dims + "] = 1"), Error);
}

// A text of inputs, tensors and nodes drawn at random, with awkward names among them.
std::string random_text(std::mt19937& random) {
  const auto below = [&](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(random);
  };
  const std::vector<std::string> odd = {"%\"7\"", "%\"a b\"", "%\"none\"", "a-b", "/x/y", "0.w"};
  std::vector<std::string> values = {"x"};
  std::string text = "input x : f32[batch,4]\n";
  for (const std::string& name : odd) {
    if (below(2) == 0) continue;
    const std::vector<std::string> kinds = {" : f32[2] = [1.5, -2]\n", " : i64[9] = #00ff\n",
                                            " : bool[] = true\n", " : f64[0] = []\n"};
    text += (below(2) == 0 ? "parameter " : "buffer ") + name + kinds[below(kinds.size())];
    values.push_back(name);
  }
  const size_t count = below(30);
  for (size_t i = 0; i < count; ++i) {
    const std::string name = "v" + std::to_string(i), a = values[below(values.size())],
                      b = values[below(values.size())];
    const std::vector<std::string> calls = {
        "aten::relu(" + a + ")",
        "aten::add.Tensor(" + a + ", " + b + ", alpha=3)",
        "aten::cat([" + a + ", " + b + "], 1) : ?[batch,8]",
        "aten::sum.dim_IntList(" + a + ", [0, -1], true, dtype=f64) : f64[1,1] @ m." + name,
        "lathe::call(" + a + ", [[1.0, \"t\\n\"], none], " + b + ") : f16[...]",
        "aten::softmax.int(" + a + ", -1) @ %\"a b\""};
    text += name + " = " + calls[below(calls.size())] + "\n";
    values.push_back(name);
  }
  for (size_t i = 0; i < 1 + below(3); ++i) {
    text += "return o" + std::to_string(i) + " = " + values[below(values.size())] + "\n";
  }
  return text;
}

TEST(Text, KeepsRandomGraphs) {
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) expect_stable(random_text(random));
}

// Damaged text is either refused with a place, or read as something that prints stably.
TEST(Text, SurvivesDamagedTexts) {
  std::mt19937 random(11);
  const std::string bytes = "()[],=:@?#%\"\\ \n.-0a\xFF";
  for (int i = 0; i < 3000; ++i) {
    std::string text = random_text(random);
    for (int edits = 0; edits < 3; ++edits) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = bytes[random() % bytes.size()];
          break;
        case 1:
          text.insert(at, 1, bytes[random() % bytes.size()]);
          break;
        default:
          text.erase(at, 1 + random() % 5);
      }
      if (text.empty()) text = " ";
    }
    try {
      expect_stable(canonical(text));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadFile) << text;
      EXPECT_THAT(error.where(), HasSubstr("line ")) << text;
    }
  }
}

TEST(Text, WritesAHundredThousandNodesInUnderASecond) {
  Model model = parse_model("input x : f32[b,2]\nreturn x = x\n");
  Value* value = model.graph().find("x");
  for (int i = 0; i < 100000; ++i) {
    Node* node = model.graph().insert_raw(nullptr, "aten::add.Tensor", {value, value, 1},
                                          {{"v" + std::to_string(i), ValueKind::kTensor}});
    value = node->output();
  }
  const auto start = std::chrono::steady_clock::now();
  const std::string text = print(model);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  RecordProperty("seconds", std::to_string(seconds.count()));
  EXPECT_LT(seconds.count(), 1.0);  // takes a twentieth of that on an idle machine
  EXPECT_GT(text.size(), 2000000u);
}

TEST(Digest, SeesDtypeSizesAndElementsButNotStrides) {
  const at::Tensor tensor = at::arange(12, at::kFloat).view({3, 4});
  const std::string digest = tensor_digest(tensor);
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(digest, tensor_digest(tensor.t().contiguous().t()));
  EXPECT_NE(digest, tensor_digest(tensor.view({4, 3})));
  EXPECT_NE(digest, tensor_digest(tensor.view(at::kInt)));
  at::Tensor changed = tensor.clone();
  changed[2][3] = 12;
  EXPECT_NE(digest, tensor_digest(changed));
  EXPECT_NE(tensor_digest(at::zeros({0, 2})), tensor_digest(at::zeros({0, 3})));
}

TEST(Digest, IsTheXxh128OfHeaderAndBytes) {
  // XXH3_128bits of the 8 bytes "u8,3;\x01\x02\x03" by a C program, in canonical (big-endian)
  // order.
  EXPECT_EQ(tensor_digest(at::tensor({1, 2, 3}, at::kByte)), "5ca01fbdaeee51f62110db0fa281f36c");
}

TEST(Digest, OfAModelSeesTensorsAndGraphButNotResultTypes) {
  const char* text =
      "input x : f32[b,2]\nw : f32[2,2] = [[1, 2], [3, 4]]\ny = aten::linear(x, w)\nreturn y = y\n";
  Model model = parse_model(text);
  const std::string digest = model_digest(model);
  model.graph().find("y")->type.dtype = at::kFloat;
  EXPECT_EQ(model_digest(model), digest);
  model.set_tensor("w", at::tensor({1.f, 2.f, 3.f, 5.f}).view({2, 2}));
  EXPECT_NE(model_digest(model), digest);
  Model other = parse_model(text);
  other.graph().set_op(&other.graph().nodes().front(), "aten::matmul");
  EXPECT_NE(model_digest(other), digest);
}

TEST(ParseFilled, FillsTensorsFromTheSeed) {
  const char* text = "a : f32[3,5]\nb : i64[4]\nc : f32[1] = [2]";
  const Model model = testing::parse_filled(text, 3);
  EXPECT_EQ(model.tensor("a").sizes(), (std::vector<int64_t>{3, 5}));
  EXPECT_GT(model.tensor("a").std().item<float>(), 0.1f);
  EXPECT_EQ(model.tensor("b").scalar_type(), at::kLong);
  EXPECT_EQ(model.tensor("c").item<float>(), 2.f);
  EXPECT_TRUE(at::equal(model.tensor("a"), testing::parse_filled(text, 3).tensor("a")));
  EXPECT_FALSE(at::equal(model.tensor("a"), testing::parse_filled(text, 4).tensor("a")));
}

}  // namespace
}  // namespace compress
