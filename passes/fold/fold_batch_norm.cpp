// The arithmetic of folding a batch norm into the layer in front of it.

#include "passes/fold/fold_batch_norm.h"

#include <ATen/TensorOperators.h>

#include <vector>

namespace compress {

at::Tensor channel_factors(const BatchNorm& norm) {
  const at::Tensor factors = (norm.variance.to(at::kDouble) + norm.eps).rsqrt();
  return norm.weight.defined() ? factors * norm.weight.to(at::kDouble) : factors;
}

at::Tensor scale_output_channels(const at::Tensor& weight, const at::Tensor& factors,
                                 int64_t output_dim, int64_t groups) {
  const at::Tensor wide = weight.to(at::kDouble);
  if (output_dim == 0) {
    std::vector<int64_t> shape(weight.dim(), 1);
    shape[0] = -1;
    return (wide * factors.view(shape)).to(weight.scalar_type());
  }
  // [groups, in / groups, out / groups, the rest] by [groups, 1, out / groups, 1]
  const at::Tensor parts = wide.reshape({groups, weight.size(0) / groups, weight.size(1), -1});
  return (parts * factors.view({groups, 1, -1, 1})).view(weight.sizes()).to(weight.scalar_type());
}

at::Tensor folded_bias(const at::Tensor& bias, const BatchNorm& norm, at::ScalarType dtype) {
  at::Tensor out = -norm.mean.to(at::kDouble);
  if (bias.defined()) out = out + bias.to(at::kDouble);
  out = out * channel_factors(norm);
  if (norm.bias.defined()) out = out + norm.bias.to(at::kDouble);
  return out.to(dtype);
}

}  // namespace compress
