// What quantizers say of a weight that they cannot quantize.

#include "passes/quantize/not_finite.h"

#include "compress/error.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/isnan.h>

#include <fmt/format.h>

namespace compress {

void refuse_not_finite(const at::Tensor& weight, const std::string& name) {
  const int64_t nan = at::isnan(weight).sum().item<int64_t>();
  const int64_t infinite = at::isinf(weight).sum().item<int64_t>();
  throw Error(
      ErrorCode::kRunFailed,
      fmt::format("{} of {} weights are NaN and {} are infinite", nan, weight.numel(), infinite),
      name, "the checkpoint is damaged or its training diverged");
}

}  // namespace compress
