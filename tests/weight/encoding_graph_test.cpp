// Tests of compress/encoding_graph.

#include "compress/encoding_graph.h"

#include "compress/encoding_bits.h"
#include "compress/encoding_codebooks.h"
#include "compress/graph/interpreter.h"
#include "passes/quantize/codebook_formats.h"
#include "passes/quantize/round_to_nearest.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

// Three bits into a codebook that no format fixes.
QuantizedTensor own_codebook() {
  QuantizedTensor out = round_to_nearest(at::randn({4, 16}), 0, {3, true});
  out.codebook = at::randn({8});
  return out;
}

// Zero points between codes, in 16 bits.
QuantizedTensor fractional_zero_points() {
  QuantizedTensor out = round_to_nearest(at::randn({4, 32}), 0, {4, false, Granularity::group(8)});
  out.zero_point = (at::rand(out.zero_point.sizes()) * 15).to(at::kHalf);
  out.scale = out.scale.to(at::kHalf);
  return out;
}

// Every width, grid, granularity and layout that the decoding of operators has a case for.
std::vector<QuantizedTensor> examples() {
  at::manual_seed(1);
  std::vector<QuantizedTensor> examples;
  for (int bits = 2; bits <= 8; ++bits) {
    for (bool symmetric : {true, false}) {
      for (const Granularity& granularity : {Granularity::tensor(), Granularity::channel(),
                                             Granularity::group(6), Granularity::group(7)}) {
        for (int64_t channel_dim : {0, 1}) {
          examples.push_back(round_to_nearest(at::randn({5, 6, 3, 2}), channel_dim,
                                              {bits, symmetric, granularity}));
        }
      }
    }
  }
  examples.push_back(round_to_nearest(at::randn({4, 16}).to(at::kBFloat16), 0, {4, true}));
  examples.push_back(round_to_nearest(at::randn({1, 7}), 0, {3, false}));
  for (const WeightFormat format :
       {WeightFormat::kNf4, WeightFormat::kFp8, WeightFormat::kMxfp4, WeightFormat::kNvfp4}) {
    for (int64_t channel_dim : {0, 1}) {
      for (int64_t size : {1, 5, 8}) {  // rows of less than a block, ragged ones and whole blocks
        examples.push_back(quantize_to(format, at::randn({4, 8, size, 4}), channel_dim,
                                       format_granularity(format)));
      }
    }
    examples.push_back(
        quantize_to(format, at::randn({4, 96}).to(at::kHalf), 0, format_granularity(format)));
  }
  examples.push_back(quantize_nf4(at::randn({4, 8}), 0, Granularity::tensor()));
  examples.push_back(quantize_nvfp4(at::randn({4, 32}), 0, /*tensor_scale=*/false));
  examples.push_back(own_codebook());
  examples.push_back(fractional_zero_points());
  return examples;
}

TEST(InsertDecoding, ComputesTheDecodedWeight) {
  for (const QuantizedTensor& quantized : examples()) {
    Model model;
    const Value* value = insert_decoding(model, quantized, "fc.weight", nullptr);
    const at::Tensor computed = evaluate(model, value);
    const at::Tensor expected = dequantize(quantized);
    ASSERT_EQ(computed.scalar_type(), expected.scalar_type());
    EXPECT_TRUE(at::equal(computed, expected)) << quantized.bits << " bits";
  }
}

TEST(MatchDecoding, FindsWhatWasInserted) {
  for (const QuantizedTensor& quantized : examples()) {
    Model model;
    const Value* value = insert_decoding(model, quantized, "fc.weight", nullptr);
    const std::optional<Decoding> found = match_decoding(model, value);
    ASSERT_TRUE(found.has_value()) << quantized.bits << " bits";
    EXPECT_EQ(found->quantized.bits, quantized.bits);
    EXPECT_EQ(found->quantized.sizes, quantized.sizes);
    EXPECT_EQ(found->quantized.channel_dim, quantized.channel_dim);
    EXPECT_EQ(found->quantized.group_size, quantized.group_size);
    EXPECT_EQ(found->quantized.symmetric(), quantized.symmetric());
    EXPECT_EQ(found->quantized.has_codebook(), quantized.has_codebook());
    EXPECT_EQ(found->quantized.scale.scalar_type(), quantized.scale.scalar_type());
    EXPECT_EQ(found->quantized.bits_on_disk(), quantized.bits_on_disk());
    EXPECT_TRUE(at::equal(dequantize(found->quantized), dequantize(quantized)));
  }
}

TEST(MatchDecoding, LeavesOtherComputationsAlone) {
  Model model;
  const QuantizedTensor quantized = round_to_nearest(at::randn({4, 16}), 0, {4, true});
  Value* decoded = insert_decoding(model, quantized, "fc.weight", nullptr);
  Value* doubled =
      model.graph().append({"aten::add.Tensor", {decoded, decoded}, {}, {}, 1, {}})->output();
  EXPECT_FALSE(match_decoding(model, doubled).has_value());
  Value* plain = model.add_tensor("w", at::ones({2, 2}), TensorRole::kParameter);
  EXPECT_FALSE(match_decoding(model, plain).has_value());
}

TEST(InsertDecoding, SharesTheShiftsOfAllWeights) {
  Model model;
  const QuantizedTensor quantized = round_to_nearest(at::randn({4, 16}), 0, {4, true});
  insert_decoding(model, quantized, "a.weight", nullptr);
  insert_decoding(model, quantized, "b.weight", nullptr);
  std::vector<std::string> names;
  for (const NamedTensor& tensor : model.tensors()) names.push_back(tensor.name);
  EXPECT_THAT(
      names, ::testing::UnorderedElementsAre("a.weight_codes4", "a.weight_scale", "b.weight_codes4",
                                             "b.weight_scale", "shifts4"));
}

TEST(InsertDecoding, SharesTheCodebookOfAFormatAndNoOther) {
  Model model;
  for (const char* name : {"a.weight", "b.weight"}) {
    insert_decoding(model, quantize_nf4(at::randn({4, 16}), 0, Granularity::channel()), name,
                    nullptr);
  }
  insert_decoding(model, own_codebook(), "c.weight", nullptr);
  std::map<std::string, TensorRole> roles;
  for (const NamedTensor& tensor : model.tensors()) roles[tensor.name] = tensor.role;
  EXPECT_EQ(roles.at("nf4_codebook"), TensorRole::kConstant);
  EXPECT_EQ(roles.at("c.weight_codebook"), TensorRole::kBuffer);
  EXPECT_EQ(roles.count("nf4_codebook_1"), 0u);
}

// (code - zero_point) * scale, element by element.
TEST(Dequantize, SubtractsFractionalZeroPoints) {
  const QuantizedTensor q = fractional_zero_points();
  const at::Tensor codes = unpack_codes(q.fields, 4, 32), decoded = dequantize(q);
  for (int64_t row = 0; row < 4; ++row) {
    for (int64_t column = 0; column < 32; ++column) {
      const float zero = q.zero_point[row][column / 8].item<float>();
      const float scale = q.scale[row][column / 8].item<float>();
      EXPECT_FLOAT_EQ(decoded[row][column].item<float>(),
                      (codes[row][column].item<float>() - zero) * scale);
    }
  }
}

}  // namespace
}  // namespace compress
