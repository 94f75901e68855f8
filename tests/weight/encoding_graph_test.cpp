// Tests of compress/encoding_graph.

#include "compress/encoding_graph.h"

#include "compress/graph/interpreter.h"
#include "passes/quantize/round_to_nearest.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

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

}  // namespace
}  // namespace compress
