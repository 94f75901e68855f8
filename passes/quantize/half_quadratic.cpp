// Groups are rows of a matrix; pieces of it that fit the cache are solved in parallel.

#include "passes/quantize/half_quadratic.h"

#include "compress/encoding_bits.h"
#include "compress/error.h"
#include "passes/quantize/not_finite.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace compress {
namespace {

constexpr int64_t kPiece = 1 << 15;  // elements

// The constants of the authors' code: below this range a group is one number, and scales are at
// least 5e-5, which 16 bits still hold.
constexpr double kLeastRange = 1e-4, kMostSteps = 2e4;

struct Group {
  at::Tensor scale, zero_point;  // float [groups, 1]
};

// The prox of the Lp norm: 0 for errors so small that the power exceeds them, 0 itself included.
at::Tensor shrink(const at::Tensor& x, double beta, double norm) {
  const at::Tensor size = x.abs();
  return x.sign().mul_((size - size.pow(norm - 1).div_(beta)).clamp_min_(0));
}

// x: [groups, columns of one].
Group solve(const at::Tensor& x, const HalfQuadratic& how) {
  const double last = (1 << how.bits) - 1;
  const at::Tensor low = x.amin(1, true), range = x.amax(1, true) - low;
  const at::Tensor steps =
      at::where(range.le(kLeastRange), 1.0, (last / range).clamp_max(kMostSteps));
  at::Tensor zero = -low * steps;
  const at::Tensor scaled = x * steps;
  at::Tensor least = at::full_like(zero, std::numeric_limits<float>::infinity());
  at::Tensor active = at::ones_like(zero, at::kBool);
  for (int i = 0; i < how.iterations; ++i) {
    const at::Tensor codes = (scaled + zero).round_().clamp_(0, last);
    const at::Tensor error = x - (codes - zero) / steps;
    const at::Tensor sparse = shrink(error, how.beta, how.norm);
    const at::Tensor next = (codes - (x - sparse).mul_(steps)).mean(1, true);
    zero = at::where(active, next, zero);
    const at::Tensor mean = error.abs().mean(1, true);
    active = active.logical_and(mean.lt(least));
    if (!active.any().item<bool>()) break;
    least = at::minimum(least, mean);
  }
  return {steps.reciprocal(), zero};
}

// Scales and zero points of all groups of `matrix`, float [rows, groups].
Group solve_all(const at::Tensor& matrix, const HalfQuadratic& how) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  const int64_t size = std::min(how.group_size, columns);
  const int64_t whole = columns / size, rest = columns - whole * size;
  const int64_t groups = whole + (rest > 0 ? 1 : 0);
  const Group out{at::empty({rows, groups}, at::kFloat), at::empty({rows, groups}, at::kFloat)};
  const int64_t step = std::max<int64_t>(1, kPiece / columns);
  const int64_t pieces = (rows + step - 1) / step;
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    const c10::NoGradGuard no_grad;
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece * step, count = std::min(step, rows - first);
      const auto put = [&](int64_t group, int64_t many, int64_t width) {
        const at::Tensor x = matrix.narrow(0, first, count).narrow(1, group * size, many * width);
        const Group found = solve(x.reshape({count * many, width}), how);
        const auto into = [&](const at::Tensor& all, const at::Tensor& part) {
          all.narrow(0, first, count).narrow(1, group, many).copy_(part.view({count, many}));
        };
        into(out.scale, found.scale);
        into(out.zero_point, found.zero_point);
      };
      put(0, whole, size);
      if (rest > 0) put(whole, 1, rest);
    }
  });
  return out;
}

// A zero point rounded to 11 bits moves by at most 2^-12 of all codes if it lies among them.
bool fits_half(const Group& groups, int bits) {
  return groups.zero_point.abs().le(1 << bits).all().item<bool>() &&
         groups.scale.le(65504).all().item<bool>();
}

}  // namespace

QuantizedTensor half_quadratic(const at::Tensor& weight, int64_t channel_dim,
                               const HalfQuadratic& how, const std::string& name) {
  COMPRESS_CHECK(weight.numel() > 0 && weight.dim() > 0, "a weight to quantize has elements");
  const c10::NoGradGuard no_grad;
  const at::Tensor matrix =
      as_matrix(weight.detach(), channel_dim).to(at::kCPU, at::kFloat).contiguous();
  if (!at::isfinite(matrix).all().item<bool>()) refuse_not_finite(weight, name);
  QuantizedTensor out;
  out.sizes = weight.sizes().vec();
  out.dtype = weight.scalar_type();
  out.channel_dim = channel_dim;
  out.bits = how.bits;
  out.group_size = std::min(how.group_size, matrix.size(1));
  const Group groups = solve_all(matrix, how);
  const at::ScalarType stored =
      how.half_scales && fits_half(groups, how.bits) ? at::kHalf : at::kFloat;
  out.scale = groups.scale.to(stored);
  out.zero_point = groups.zero_point.to(stored);
  // The codes are those of the numbers that are stored.
  const auto spread = [&](const at::Tensor& per_group) {
    return per_group.to(at::kFloat)
        .repeat_interleave(out.group_size, 1)
        .narrow(1, 0, matrix.size(1));
  };
  const at::Tensor codes = (matrix / spread(out.scale)).add_(spread(out.zero_point)).round_();
  out.fields = pack_codes(codes.clamp_(0, (1 << how.bits) - 1).to(at::kByte), how.bits);
  return out;
}

}  // namespace compress
