// ONNX files: bytes against those worked out by hand from onnx.proto, and what is refused. That
// ONNX Runtime computes the same is tests/interop/test_onnx.py.

#include "compress/io/onnx.h"

#include "compress/encoding_bits.h"
#include "compress/files.h"
#include "compress/graph/text.h"
#include "compress/io/onnx/file.h"
#include "compress/io/onnx/quantized.h"
#include "compress/io/onnx/wire.h"
#include "tests/io/files.h"
#include "tests/support/paths.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using onnx::Message;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using namespace std::string_literals;

std::vector<std::string> saved(const std::string& text, const std::filesystem::path& path,
                               const OnnxOptions& options = {}) {
  return save_onnx(parse_model(text), path, options);
}

// The first three examples stand in the description of the format (protobuf.dev, "Encoding").
TEST(OnnxWire, WritesTheExamplesOfTheFormatsDescription) {
  Message number;
  number.integer(1, 150);
  EXPECT_EQ(number.bytes(), "\x08\x96\x01");
  Message text;
  text.text(2, "testing");
  EXPECT_EQ(text.bytes(), "\x12\x07testing");
  Message outer;
  outer.message(3, number);
  EXPECT_EQ(outer.bytes(), "\x1a\x03\x08\x96\x01");
}

TEST(OnnxWire, NegativeNumbersTakeTenBytesAndFloatsFour) {
  Message message;
  message.integer(3, -2);
  message.number(2, 1.0f);
  EXPECT_EQ(message.bytes(), "\x18\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x15\x00\x00\x80\x3f"s);
}

TEST(OnnxWire, TagsOfFieldsAboveFifteenTakeTwoBytes) {
  Message message;
  message.integer(20, 7);
  EXPECT_EQ(message.bytes(), "\xa0\x01\x07");
}

// ModelProto of one Relu, each field by hand.
TEST(OnnxFile, IsTheModelProtoOfTheNetwork) {
  const ScratchDir scratch;
  onnx::OnnxModel model;
  model.name = "g";
  model.nodes = {{"Relu", {"x"}, {"y"}, {{"k", int64_t{1}}}, "n"}};
  model.inputs = {{"x", onnx::DataType::kFloat, {Dim("b", 2), Dim(3)}}};
  model.outputs = {{"y", onnx::DataType::kFloat, {}}};
  const at::Tensor two = at::tensor({int8_t{5}, int8_t{-1}}, at::kChar);
  model.initializers = {{"w", onnx::DataType::kInt8, {2}, 2, [two] { return two; }}};
  model.metadata = {{"key", "v"}};
  onnx::write(model, scratch / "m.onnx", scratch / "m.onnx.data", 100);
  const std::string attribute = "\x0a\x01k\x18\x01\xa0\x01\x02"s;
  const std::string node = "\x0a\x01x\x12\x01y\x1a\x01n\x22\x04Relu\x2a"s + char(8) + attribute;
  const std::string shape =
      "\x0a\x03\x12\x01"
      "b"
      "\x0a\x02\x08\x03"s;
  const std::string x = "\x0a\x01x\x12\x0f\x0a\x0d\x08\x01\x12\x09"s + shape;
  const std::string y = "\x0a\x01y\x12\x06\x0a\x04\x08\x01\x12\x00"s;
  const std::string w = "\x08\x02\x10\x03\x42\x01w\x4a\x02\x05\xff"s;
  const auto field = [](char tag, const std::string& content) {
    return std::string{tag, char(content.size())} + content;
  };
  const std::string graph =
      field('\x0a', node) + "\x12\x01g" + field('\x5a', x) + field('\x62', y) + field('\x2a', w);
  EXPECT_THAT(read_all(scratch / "m.onnx"), HasSubstr(field('\x3a', graph)));
  EXPECT_THAT(read_all(scratch / "m.onnx"), ::testing::StartsWith("\x08\x08\x12\x05lathe\x1a"s));
  EXPECT_THAT(read_all(scratch / "m.onnx"), HasSubstr("\x42\x04\x0a\x00\x10\x11"s));  // opset 17
  EXPECT_THAT(read_all(scratch / "m.onnx"), HasSubstr("\x72\x08\x0a\x03key\x12\x01v"s));
  EXPECT_EQ(files_in(scratch.path()), 1u);
}

constexpr const char* kLinear = R"(
input x : f32[batch,2]
parameter fc.weight : f32[3,2] = [[1, 2], [3, 4], [5, 6]]
linear = aten::linear(x, fc.weight) : f32[batch,3] @ fc
return logits = linear
)";

TEST(Onnx, KeepsTheNamesOfInputsOutputsAndFreeSizes) {
  const ScratchDir scratch;
  EXPECT_THAT(saved(kLinear, scratch / "m.onnx"), IsEmpty());
  const std::string bytes = read_all(scratch / "m.onnx");
  EXPECT_THAT(bytes, AllOf(HasSubstr("batch"), HasSubstr("logits"), HasSubstr("fc.weight"),
                           HasSubstr("Gemm"), HasSubstr("transB")));
}

TEST(Onnx, WritesTheSameBytesAgain) {
  const ScratchDir scratch;
  saved(kLinear, scratch / "a.onnx");
  saved(kLinear, scratch / "b.onnx");
  EXPECT_EQ(read_all(scratch / "a.onnx"), read_all(scratch / "b.onnx"));
}

TEST(Onnx, TensorsOfALargeModelGoBesideIt) {
  const ScratchDir scratch;
  saved(kLinear, scratch / "m.onnx", {.external_data_over = 23});
  const at::Tensor weight = at::tensor({1.f, 2.f, 3.f, 4.f, 5.f, 6.f});
  const std::string wanted(static_cast<const char*>(weight.const_data_ptr()), 24);
  EXPECT_EQ(read_all(scratch / "m.onnx.data"), wanted);
  const std::string bytes = read_all(scratch / "m.onnx");
  EXPECT_THAT(bytes,
              AllOf(HasSubstr("m.onnx.data"), HasSubstr("location"), Not(HasSubstr(wanted))));
  EXPECT_EQ(model_file_bytes(scratch / "m.onnx"), static_cast<int64_t>(bytes.size()) + 24);
  saved(kLinear, scratch / "m.onnx");
  EXPECT_FALSE(std::filesystem::exists(scratch / "m.onnx.data"));
  EXPECT_THAT(read_all(scratch / "m.onnx"), HasSubstr(wanted));
}

TEST(Onnx, NamesAllOperatorsThatItLacksAndWritesNothing) {
  const ScratchDir scratch;
  write_all(scratch / "m.onnx", "old");
  const Error error = error_of([&] {
    saved(R"(
input x : f32[4]
lgamma = aten::lgamma(x) : f32[4] @ head.first
digamma = aten::digamma(lgamma) : f32[4] @ head.second
return y = digamma
)",
          scratch / "m.onnx");
  });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(error.message(),
              AllOf(HasSubstr("2 operators"), HasSubstr("aten::lgamma @ head.first"),
                    HasSubstr("aten::digamma @ head.second")));
  EXPECT_THAT(error.hint(), HasSubstr(".pt2"));
  EXPECT_EQ(read_all(scratch / "m.onnx"), "old");
  EXPECT_EQ(files_in(scratch.path()), 1u);
}

TEST(Onnx, RefusesASetOfTensors) {
  const ScratchDir scratch;
  const Error error = error_of([&] { saved("w : f32[1] = [1]", scratch / "m.onnx"); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.message(), HasSubstr("set of tensors"));
}

TEST(Onnx, RefusesATensorThatIsKnownByItsDigestOnly) {
  const ScratchDir scratch;
  Model model = parse_model(kLinear);
  model.find_tensor("fc.weight")->tensor = at::Tensor();
  const Error error = error_of([&] { save_onnx(model, scratch / "m.onnx"); });
  EXPECT_EQ(error.where(), "fc.weight");
  EXPECT_THAT(error.message(), HasSubstr("no contents"));
}

TEST(Onnx, IsNotRead) {
  const ScratchDir scratch;
  saved(kLinear, scratch / "m.onnx");
  const Error error = error_of([&] { load_model((scratch / "m.onnx").string()); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(error.message(), HasSubstr("not read"));
}

TEST(Onnx, MultipliesMasksOut) {
  const ScratchDir scratch;
  saved(R"(
input x : f32[batch,2]
parameter fc.weight : f32[1,2] = [[3, 7]]
buffer fc.weight_mask : bool[1,2] = [[true, false]]
mul = aten::mul.Tensor(fc.weight, fc.weight_mask) : f32[1,2]
linear = aten::linear(x, mul) : f32[batch,1]
return y = linear
)",
        scratch / "m.onnx");
  const std::string bytes = read_all(scratch / "m.onnx");
  EXPECT_THAT(bytes, AllOf(Not(HasSubstr("mask")), Not(HasSubstr("Mul"))));
  EXPECT_THAT(bytes, HasSubstr("\x4a\x08\x00\x00\x40\x40\x00\x00\x00\x00"s));  // raw_data [3, 0]
}

QuantizedTensor symmetric(int bits, const at::Tensor& codes, const at::Tensor& scale,
                          int64_t group_size) {
  QuantizedTensor out;
  out.sizes = codes.sizes().vec();
  out.bits = bits;
  out.fields = pack_codes(codes.add(1 << (bits - 1)).to(at::kByte), bits);
  out.scale = scale;
  out.group_size = group_size;
  return out;
}

TEST(OnnxQuantized, ChannelsAreAnAxisThatTurnsWithTheMatrix) {
  const at::Tensor codes = at::tensor({-127, 3, 4, 127}, at::kLong).view({2, 2});
  const at::Tensor scale = at::tensor({0.5f, 2.f}).view({2, 1});
  const auto plain = onnx::split(symmetric(8, codes, scale, 2), false);
  EXPECT_EQ(plain.axis, 0);
  EXPECT_EQ(plain.block_size, 0);
  EXPECT_TRUE(at::equal(plain.codes, codes.to(at::kChar)));
  EXPECT_TRUE(at::equal(plain.scale, at::tensor({0.5f, 2.f})));
  const auto turned = onnx::split(symmetric(8, codes, scale, 2), true);
  EXPECT_EQ(turned.axis, 1);
  EXPECT_TRUE(at::equal(turned.codes, codes.t().to(at::kChar)));
}

TEST(OnnxQuantized, GroupsAreBlocksAlongTheColumns) {
  const at::Tensor codes = at::tensor({1, -2, 3, -4, 5, -6, 7, -8}, at::kLong).view({2, 4});
  const at::Tensor scale = at::tensor({1.f, 2.f, 3.f, 4.f}).view({2, 2});
  const auto turned = onnx::split(symmetric(4, codes, scale, 2), true);
  EXPECT_EQ(turned.axis, 0);
  EXPECT_EQ(turned.block_size, 2);
  EXPECT_TRUE(at::equal(turned.codes, codes.t().to(at::kChar)));
  EXPECT_TRUE(at::equal(turned.scale, scale.t()));
}

TEST(OnnxQuantized, NibblesHaveTheFirstCodeInTheLowHalf) {
  const at::Tensor codes = at::tensor({1, -2, 3}, at::kLong).to(at::kChar);
  EXPECT_TRUE(
      at::equal(onnx::pack_nibbles(codes), at::tensor({0xe1, 0x03}, at::kLong).to(at::kByte)));
}

}  // namespace
}  // namespace compress::testing
