// Tests of passes/quantize/codebook_formats: golden vectors, exhaustive searches, orders of error.

#include "passes/quantize/codebook_formats.h"

#include "compress/encoding_bits.h"
#include "compress/encoding_codebooks.h"
#include "compress/error.h"
#include "passes/quantize/round_to_nearest.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

namespace compress::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr WeightFormat kFormats[] = {WeightFormat::kNf4, WeightFormat::kFp8, WeightFormat::kMxfp4,
                                     WeightFormat::kNvfp4};

at::Tensor row(const std::vector<float>& values) { return at::tensor(values).view({1, -1}); }

std::vector<int> codes_of(const QuantizedTensor& quantized) {
  const at::Tensor codes = unpack_codes(quantized.fields, quantized.bits, quantized.columns());
  std::vector<int> numbers;
  for (int64_t i = 0; i < codes.numel(); ++i) numbers.push_back(codes.flatten()[i].item<int>());
  return numbers;
}

std::vector<float> floats(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.flatten().contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

QuantizedTensor in_format(WeightFormat format, const at::Tensor& x) {
  return quantize_to(format, x, 0, format_granularity(format), "fc.weight");
}

// Bits of signal over bits of noise, in dB.
double sqnr(const at::Tensor& x, const QuantizedTensor& quantized) {
  const at::Tensor wide = x.to(at::kDouble);
  const double noise = (dequantize(quantized).to(at::kDouble) - wide).square().sum().item<double>();
  return 10 * std::log10(wide.square().sum().item<double>() / noise);
}

const at::Tensor kTwelve =
    row({-.8f, -.3f, .1f, .45f, .9f, .2f, -.05f, .7f, 5.2f, -7.9f, 3.3f, 1.24f});

// By bitsandbytes' rule, with pencil and paper.
TEST(QuantizeNf4, GivesTheGoldenCodes) {
  const QuantizedTensor q =
      quantize_nf4(row({-.8f, -.3f, .1f, .45f, .9f, .2f, -.05f, .7f}), 0, Granularity::group(64));
  EXPECT_THAT(codes_of(q), ElementsAre(0, 4, 8, 12, 15, 10, 6, 14));
  EXPECT_FLOAT_EQ(q.scale.item<float>(), .9f);
}

// E = 0: 5.2 lies in [4, 8) with step 2, 2.6 becomes 3 steps; 7.9 saturates; .7 is subnormal.
TEST(QuantizeMxfp4, GivesTheGoldenValues) {
  const QuantizedTensor q = quantize_mxfp4(kTwelve, 0);
  EXPECT_THAT(floats(dequantize(q)), ElementsAre(-1, -.5f, 0, .5f, 1, 0, 0, .5f, 6, -6, 3, 1));
  EXPECT_EQ(q.scale.scalar_type(), at::kFloat8_e8m0fnu);
  EXPECT_EQ(q.scale.to(at::kFloat).item<float>(), 1);
  EXPECT_EQ(codes_of(q)[6], 8);  // -0
}

// absmax / 6 = 1.31667 becomes 1.375 in E4M3.
TEST(QuantizeNvfp4, GivesTheGoldenValuesOfOneBlock) {
  const QuantizedTensor q = quantize_nvfp4(kTwelve, 0, /*tensor_scale=*/false);
  EXPECT_THAT(floats(dequantize(q)), ElementsAre(-.6875f, 0, 0, .6875f, .6875f, 0, 0, .6875f, 5.5f,
                                                 -8.25f, 2.75f, 1.375f));
}

TEST(QuantizeFp4, RoundsHalfToTheEvenCode) {
  const QuantizedTensor q = quantize_mxfp4(
      row({.25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 6.0f, -.25f, -.75f, -5.0f}), 0);
  EXPECT_THAT(codes_of(q), ElementsAre(0, 2, 2, 4, 4, 6, 6, 7, 8, 10, 14));
}

// LibTorch converts one number at a time by a way of its own.
TEST(QuantizeFp8, ConvertsAsLibTorchDoes) {
  at::manual_seed(1);
  at::Tensor x = at::randn({4, 5000}) * at::randn({4, 5000}).mul(4).exp();
  x = at::cat({x.clamp(-448, 448), at::full({4, 1}, 448.0f)}, 1);  // scale 1
  const QuantizedTensor q = quantize_fp8(x, 0, Granularity::channel());
  EXPECT_TRUE(at::equal(q.scale, at::ones({4, 1})));
  EXPECT_TRUE(at::equal(dequantize(q), x.to(at::kFloat8_e4m3fn).to(at::kFloat)));
}

TEST(CodebookFormats, TakeTheNearestValueOfTheCodebook) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({6, 100});
  for (const WeightFormat format : kFormats) {
    const QuantizedTensor q = in_format(format, x);
    const at::Tensor scale =
        float_scale(q).repeat_interleave(q.group_size, 1).narrow(1, 0, x.size(1));
    const at::Tensor candidates = q.codebook * scale.unsqueeze(-1);  // [rows, columns, codes]
    const at::Tensor least = (candidates - x.unsqueeze(-1)).abs().amin(-1);
    const at::Tensor found = (dequantize(q) - x).abs();
    EXPECT_LE((found - least).max().item<double>(), 1e-6) << static_cast<int>(format);
  }
}

TEST(CodebookFormats, TakeTheBitsThatTheyAreKnownFor) {
  const at::Tensor x = at::randn({64, 1024});
  const std::vector<double> expected = {4.5, 8 + 32.0 / 1024, 4.25, 4.5};
  for (size_t i = 0; i < expected.size(); ++i) {
    const QuantizedTensor q = in_format(kFormats[i], x);
    const int64_t extra = q.global_scale.defined() ? 32 : 0;
    EXPECT_DOUBLE_EQ(static_cast<double>(q.bits_on_disk() - extra), expected[i] * 65536);
  }
}

// The global scale is written as its reciprocal, and read back.
TEST(QuantizeNvfp4, HasAGlobalScaleThatSurvivesTwoReciprocals) {
  at::manual_seed(3);
  for (int i = 0; i < 200; ++i) {
    const QuantizedTensor q = quantize_nvfp4(at::randn({2, 16}) * std::exp(i / 10.0 - 10), 0);
    EXPECT_TRUE(at::equal(q.global_scale.reciprocal().reciprocal(), q.global_scale));
  }
}

TEST(CodebookFormats, KeepZerosAndBlocksOfZeros) {
  at::manual_seed(4);
  at::Tensor x = at::randn({3, 128});
  x.narrow(1, 0, 64).zero_();
  x[2].zero_();
  x[0][100] = 0;
  for (const WeightFormat format : kFormats) {
    const at::Tensor back = dequantize(in_format(format, x));
    EXPECT_TRUE(at::isfinite(back).all().item<bool>());
    EXPECT_TRUE(back.masked_select(x.eq(0)).eq(0).all().item<bool>()) << static_cast<int>(format);
    EXPECT_TRUE(at::isfinite(dequantize(in_format(format, at::zeros({2, 40})))).all().item<bool>());
  }
}

TEST(CodebookFormats, CoverVeryLargeAndVerySmallFloats) {
  for (const WeightFormat format : kFormats) {
    for (const float size : {3e38f, 1e-30f, 1e-34f}) {
      const at::Tensor x = at::tensor(std::vector<float>{1, -.5f, .1f, 0}).view({1, 4}) * size;
      const at::Tensor back = dequantize(in_format(format, x));
      EXPECT_TRUE(at::isfinite(back).all().item<bool>()) << static_cast<int>(format) << size;
      EXPECT_LE((back - x).abs().max().item<float>(), .3f * size) << static_cast<int>(format);
    }
  }
}

TEST(CodebookFormats, LieAlongTheChannelDimension) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({40, 3, 2, 2});
  for (const WeightFormat format : kFormats) {
    const QuantizedTensor q = quantize_to(format, x, 1, format_granularity(format));
    const at::Tensor rows = x.transpose(0, 1).contiguous().view({3, -1});
    const QuantizedTensor flat = in_format(format, rows);
    EXPECT_TRUE(at::equal(as_matrix(dequantize(q), 1), dequantize(flat)));
  }
}

TEST(CodebookFormats, GiveTheSameBytesOnOneThreadAndOnThree) {
  at::manual_seed(6);
  const at::Tensor x = at::randn({300, 1000});
  const int threads = at::get_num_threads();
  for (const WeightFormat format : kFormats) {
    at::set_num_threads(1);
    const QuantizedTensor one = in_format(format, x);
    at::set_num_threads(3);
    EXPECT_TRUE(at::equal(in_format(format, x).fields[0], one.fields[0]));
  }
  at::set_num_threads(threads);
}

// Of normally distributed weights. NF4 is made for them; integers get the same blocks as NF4.
TEST(CodebookFormats, OrderByTheirErrorOnNormalWeights) {
  at::manual_seed(7);
  const at::Tensor x = at::randn({256, 4096});
  const double nf4 = sqnr(x, in_format(WeightFormat::kNf4, x));
  const double nvfp4 = sqnr(x, in_format(WeightFormat::kNvfp4, x));
  const double mxfp4 = sqnr(x, in_format(WeightFormat::kMxfp4, x));
  const double fp8 = sqnr(x, in_format(WeightFormat::kFp8, x));
  const double int4 = sqnr(x, round_to_nearest(x, 0, {4, true, Granularity::group(64)}));
  EXPECT_GT(fp8, nf4 + 5);
  EXPECT_GT(nf4, int4);
  EXPECT_GT(nvfp4, int4);
  EXPECT_GT(int4, mxfp4);
}

TEST(CodebookFormats, RefuseWhatIsNotFinite) {
  at::Tensor x = at::ones({2, 4});
  x[0][1] = std::numeric_limits<float>::infinity();
  x[1][2] = std::numeric_limits<float>::quiet_NaN();
  for (const WeightFormat format : kFormats) {
    EXPECT_THAT(message_of([&] { in_format(format, x); }),
                HasSubstr("1 of 8 weights are NaN and 1 are infinite"));
  }
}

}  // namespace
}  // namespace compress::testing
