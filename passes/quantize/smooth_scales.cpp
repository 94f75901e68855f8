// How much of the activations' range SmoothQuant moves into the weights.

#include "passes/quantize/smooth_scales.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>

namespace compress {

at::Tensor smooth_scales(const at::Tensor& activations, const at::Tensor& weights, double alpha) {
  // The least scale of the authors' code; a channel this small is lost to any quantizer.
  constexpr double kLeast = 1e-5;
  const at::Tensor x = activations.to(at::kDouble), w = weights.to(at::kDouble);
  const at::Tensor scales = (x.pow(alpha) / w.pow(1 - alpha)).clamp_min(kLeast);
  return at::where(x.eq(0).logical_or(w.eq(0)), 1.0, scales);
}

}  // namespace compress
