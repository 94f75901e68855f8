// What rounding a weight adds to the mean of the layer's outputs.

#include "passes/quantize/bias_correction.h"

#include "compress/encoding.h"
#include "compress/error.h"

#include <ATen/TensorOperators.h>

namespace compress {

at::Tensor expected_output_shift(const at::Tensor& error, const at::Tensor& input_mean,
                                 int64_t output_dim, int64_t groups) {
  const at::Tensor matrix = as_matrix(error, output_dim).to(at::kDouble);
  const int64_t rows = matrix.size(0), inputs = input_mean.numel() / groups;
  COMPRESS_CHECK(rows % groups == 0 && inputs > 0 && matrix.size(1) % inputs == 0,
                 "the weight has the channels of its input");
  const at::Tensor taps = matrix.view({groups, rows / groups, inputs, -1}).sum(-1);
  const at::Tensor mean = input_mean.to(at::kDouble).view({groups, 1, inputs});
  return (taps * mean).sum(-1).flatten();
}

}  // namespace compress
