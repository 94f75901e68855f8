// What is added to the diagonal of a Gram matrix so that it can be inverted.

#include "passes/second_order/damping.h"

#include "compress/error.h"

#include <algorithm>
#include <cmath>

namespace compress {

Damping::Damping(const at::Tensor& gram, double share) : gram_(gram), share_(share) {
  const at::Tensor diagonal = gram.diagonal();
  const auto alive = diagonal.count_nonzero().item<int64_t>();
  if (alive > 0) mean_ = diagonal.sum().item<double>() / static_cast<double>(alive);
}

void Damping::raise() {
  if (!std::isfinite(gram_.sum().item<double>()) || share_ > 1e6) {
    throw Error(ErrorCode::kRunFailed, "the inputs of the layer are not finite on calibration data",
                "", "look for NaN or infinite elements in the data and in the weights before it");
  }
  share_ = std::max(10 * share_, 1e-6);
}

}  // namespace compress
