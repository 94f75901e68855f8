// A first reading finds the blocks' greatest magnitudes, from which the few scales follow in ATen;
// a second one divides, rounds and packs a row at a time.

#include "passes/quantize/codebook_formats.h"

#include "compress/encoding_bits.h"
#include "compress/encoding_codebooks.h"
#include "compress/error.h"
#include "compress/multiversion.h"
#include "passes/quantize/not_finite.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cstdint>
#include <tuple>
#include <utility>

namespace compress {
namespace {

constexpr int32_t kMagnitude = 0x7fffffff, kInfinity = 0x7f800000;
constexpr float kFp4Most = 6, kFp8Most = 448;

// Magnitudes order like their bits; those of infinities and NaN are the greatest.
COMPRESS_MULTIVERSION
int32_t greatest_magnitude(const float* x, int64_t size) {
  int32_t greatest = 0;
  for (int64_t i = 0; i < size; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x[i]) & kMagnitude;
    greatest = bits > greatest ? bits : greatest;
  }
  return greatest;
}

// Halfway between neighbours of the codebook.
constexpr std::array<float, 15> kNf4Between = [] {
  std::array<float, 15> between{};
  for (size_t i = 0; i < between.size(); ++i) between[i] = (kNf4[i] + kNf4[i + 1]) / 2;
  return between;
}();

COMPRESS_MULTIVERSION
void nf4_codes(const float* x, int64_t size, float scale, uint8_t* codes) {
  for (int64_t i = 0; i < size; ++i) {
    const float value = x[i] / scale;
    int32_t code = 0;
#pragma GCC unroll 15
    for (const float between : kNf4Between) code += value > between;
    codes[i] = static_cast<uint8_t>(code);
  }
}

// Between the magnitudes 0, .5, 1, 1.5, 2, 3, 4, 6 half goes to the even code: up from .75, 1.75
// and 3.5, of which these are the floats right below.
constexpr float kFp4Between[] = {0.25f, 0.75f - 0x1p-24f, 1.25f, 1.75f - 0x1p-23f,
                                 2.5f,  3.5f - 0x1p-22f,  5.0f};

COMPRESS_MULTIVERSION
void fp4_codes(const float* x, int64_t size, float scale, uint8_t* codes) {
  for (int64_t i = 0; i < size; ++i) {
    const auto bits = std::bit_cast<int32_t>(x[i] / scale);
    const auto magnitude = std::bit_cast<float>(bits & kMagnitude);
    int32_t code = 0;
#pragma GCC unroll 7
    for (const float between : kFp4Between) code += magnitude > between;
    const int32_t sign = (bits >> 28) & 8;
    codes[i] = static_cast<uint8_t>(code | sign);
  }
}

// Adding 1.5 * 2^23 units of the last place that the format keeps rounds half to even to it; below
// 2^-6, where its numbers lie evenly, the unit is 2^-9.
COMPRESS_MULTIVERSION
void fp8_codes(const float* x, int64_t size, float scale, uint8_t* codes) {
  constexpr int32_t kLeastNormal = (127 - 6) << 23, kHalf = 1 << 22;
  for (int64_t i = 0; i < size; ++i) {
    const auto bits = std::bit_cast<int32_t>(x[i] / scale);
    auto magnitude = std::bit_cast<float>(bits & kMagnitude);
    magnitude = magnitude < kFp8Most ? magnitude : kFp8Most;
    int32_t exponent = std::bit_cast<int32_t>(magnitude) & kInfinity;
    exponent = exponent > kLeastNormal ? exponent : kLeastNormal;
    const auto rounder = std::bit_cast<float>((exponent + (20 << 23)) | kHalf);
    const float rounded = (magnitude + rounder) - rounder;
    const auto normal = (std::bit_cast<int32_t>(rounded) >> 20) - ((127 - 7) << 3);
    const auto even = static_cast<int32_t>(rounded * 512);
    const int32_t code = rounded < 0.015625f ? even : normal;
    codes[i] = static_cast<uint8_t>(code | ((bits >> 24) & 0x80));
  }
}

using WriteCodes = void (*)(const float* x, int64_t size, float scale, uint8_t* codes);

// A weight as a matrix, cut into the blocks that share a scale.
class Blocks {
 public:
  Blocks(const at::Tensor& weight, int64_t channel_dim, const Granularity& granularity,
         const std::string& name)
      : matrix_(as_matrix(weight.detach(), channel_dim).to(at::kCPU, at::kFloat).contiguous()),
        whole_(granularity.kind == Granularity::Kind::kTensor) {
    COMPRESS_CHECK(weight.numel() > 0 && weight.dim() > 0, "a weight to quantize has elements");
    out_.sizes = weight.sizes().vec();
    out_.dtype = weight.scalar_type();
    out_.channel_dim = channel_dim;
    const bool grouped = granularity.kind == Granularity::Kind::kGroup;
    out_.group_size = grouped ? std::min(granularity.group_size, columns()) : columns();
    groups_ = (columns() + out_.group_size - 1) / out_.group_size;
    find_magnitudes();
    if (!(absmax_.max().item<float>() <= FLT_MAX)) refuse_not_finite(weight, name);
  }

  /// The greatest magnitudes, float [rows or 1, groups].
  const at::Tensor& absmax() const { return absmax_; }

  /// Codes of x / divisors, where `scale` is how the divisors are stored.
  QuantizedTensor encode(int bits, const at::Tensor& codebook, at::Tensor scale,
                         const at::Tensor& divisors, WriteCodes write_codes) {
    out_.bits = bits;
    out_.codebook = codebook;
    out_.scale = std::move(scale);
    const int64_t bytes = packed_bytes(columns(), bits);
    out_.fields = {at::empty({rows(), bytes}, at::kByte)};
    uint8_t* packed = out_.fields[0].mutable_data_ptr<uint8_t>();
    const at::Tensor contiguous = divisors.contiguous();
    const float* divisor = contiguous.const_data_ptr<float>();
    each_row([&](int64_t row, const float* x, std::vector<uint8_t>& codes) {
      for (int64_t group = 0; group < groups_; ++group) {
        const int64_t first = group * out_.group_size;
        write_codes(x + first, size_of(group), divisor[whole_ ? 0 : row * groups_ + group],
                    codes.data() + first);
      }
      pack_row(codes.data(), columns(), 0, bits, packed + row * bytes);
    });
    return std::move(out_);
  }

 private:
  int64_t rows() const { return matrix_.size(0); }
  int64_t columns() const { return matrix_.size(1); }
  int64_t size_of(int64_t group) const {
    return std::min(out_.group_size, columns() - group * out_.group_size);
  }

  // Calls visit(row, its elements, room for its codes), rows in parallel.
  template <class Visit>
  void each_row(const Visit& visit) const {
    const float* x = matrix_.const_data_ptr<float>();
    const int64_t grain = std::max<int64_t>(1, (1 << 15) / columns());
    at::parallel_for(0, rows(), grain, [&](int64_t begin, int64_t end) {
      std::vector<uint8_t> codes(columns());
      for (int64_t row = begin; row < end; ++row) visit(row, x + row * columns(), codes);
    });
  }

  void find_magnitudes() {
    at::Tensor magnitudes = at::empty({rows(), groups_}, at::kInt);
    int32_t* out = magnitudes.mutable_data_ptr<int32_t>();
    each_row([&](int64_t row, const float* x, std::vector<uint8_t>&) {
      for (int64_t group = 0; group < groups_; ++group) {
        out[row * groups_ + group] =
            greatest_magnitude(x + group * out_.group_size, size_of(group));
      }
    });
    absmax_ = (whole_ ? magnitudes.max().view({1, 1}) : magnitudes).view(at::kFloat);
  }

  at::Tensor matrix_, absmax_;
  bool whole_;
  int64_t groups_ = 0;
  QuantizedTensor out_;
};

// Scales of blocks without a magnitude become 1, those that would be denormal the least normal.
at::Tensor usable(const at::Tensor& scale, const at::Tensor& absmax) {
  return at::where(absmax.eq(0), 1.0, scale.clamp_min(FLT_MIN));
}

// The float nearest to `number` that is the reciprocal of a float and whose own is that one.
float reciprocal_of_float(float number) { return 1 / (1 / number); }

}  // namespace

int format_bits(WeightFormat format) {
  if (format == WeightFormat::kInt) return 0;
  return format == WeightFormat::kFp8 ? 8 : 4;
}

Granularity format_granularity(WeightFormat format) {
  switch (format) {
    case WeightFormat::kNf4:
      return Granularity::group(64);
    case WeightFormat::kMxfp4:
      return Granularity::group(32);
    case WeightFormat::kNvfp4:
      return Granularity::group(16);
    default:
      return Granularity::channel();
  }
}

bool has_free_granularity(WeightFormat format) {
  return format != WeightFormat::kMxfp4 && format != WeightFormat::kNvfp4;
}

QuantizedTensor quantize_nf4(const at::Tensor& weight, int64_t channel_dim,
                             const Granularity& granularity, const std::string& name) {
  Blocks blocks(weight, channel_dim, granularity, name);
  const at::Tensor scale = usable(blocks.absmax(), blocks.absmax());
  return blocks.encode(4, nf4_codebook(), scale, scale, nf4_codes);
}

QuantizedTensor quantize_fp8(const at::Tensor& weight, int64_t channel_dim,
                             const Granularity& granularity, const std::string& name) {
  Blocks blocks(weight, channel_dim, granularity, name);
  const at::Tensor scale = usable(blocks.absmax() / kFp8Most, blocks.absmax());
  return blocks.encode(8, fp8_codebook(), scale, scale, fp8_codes);
}

QuantizedTensor quantize_mxfp4(const at::Tensor& weight, int64_t channel_dim,
                               const std::string& name) {
  Blocks blocks(weight, channel_dim, format_granularity(WeightFormat::kMxfp4), name);
  // frexp has mantissas in [0.5, 1): floor(log2 absmax) is its exponent less 1.
  const at::Tensor exponent =
      at::where(blocks.absmax().eq(0), 0, std::get<1>(at::frexp(blocks.absmax())) - 3);
  const at::Tensor scale =
      (exponent.clamp(-126, 127) + 127).to(at::kByte).view(at::kFloat8_e8m0fnu);
  return blocks.encode(4, fp4_codebook(), scale, scale.to(at::kFloat), fp4_codes);
}

QuantizedTensor quantize_nvfp4(const at::Tensor& weight, int64_t channel_dim, bool tensor_scale,
                               const std::string& name) {
  Blocks blocks(weight, channel_dim, format_granularity(WeightFormat::kNvfp4), name);
  const at::Tensor& absmax = blocks.absmax();
  const float most = absmax.max().item<float>();
  // So large that no product with a scale is denormal, which processors may be told to flush to 0.
  const float wanted = std::max(most / (kFp8Most * kFp4Most), 512 * FLT_MIN);
  const float global = tensor_scale && most > 0 ? reciprocal_of_float(wanted) : 1.0f;
  // A scale that rounds to 0 would lose its block, the least one of E4M3 keeps what it can.
  const at::Tensor scale =
      (absmax / kFp4Most / global).clamp(0x1p-9, kFp8Most).to(at::kFloat8_e4m3fn);
  QuantizedTensor out =
      blocks.encode(4, fp4_codebook(), scale, scale.to(at::kFloat) * global, fp4_codes);
  if (tensor_scale) out.global_scale = at::full({}, global, at::kFloat);
  return out;
}

QuantizedTensor quantize_to(WeightFormat format, const at::Tensor& weight, int64_t channel_dim,
                            const Granularity& granularity, const std::string& name) {
  switch (format) {
    case WeightFormat::kNf4:
      return quantize_nf4(weight, channel_dim, granularity, name);
    case WeightFormat::kFp8:
      return quantize_fp8(weight, channel_dim, granularity, name);
    case WeightFormat::kMxfp4:
      return quantize_mxfp4(weight, channel_dim, name);
    case WeightFormat::kNvfp4:
      return quantize_nvfp4(weight, channel_dim, /*tensor_scale=*/true, name);
    case WeightFormat::kInt:
      break;
  }
  COMPRESS_CHECK(false, "integers have no codebook");
}

}  // namespace compress
