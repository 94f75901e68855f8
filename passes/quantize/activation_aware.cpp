// Errors of outputs come from the Gram matrix of the inputs: exact over all calibration data, at
// the price of one matrix product a trial, whatever the number of samples.

#include "passes/quantize/activation_aware.h"

#include "compress/encoding.h"
#include "compress/error.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

namespace compress {
namespace {

// The weight's matrix after rounding.
at::Tensor rounded(const at::Tensor& weight, int64_t output_dim, const RoundToNearest& how) {
  return as_matrix(dequantize(round_to_nearest(weight, output_dim, how)), output_dim);
}

at::Tensor in_shape(const at::Tensor& scales, const AwareLayer& layer) {
  std::vector<int64_t> shape(layer.weight.dim(), 1);
  shape[layer.input_dim] = -1;
  return scales.to(at::kFloat).view(shape);
}

// Diagonal blocks of a Gram matrix, float [blocks, size, size]; the last one padded with zeros.
at::Tensor diagonal_blocks(const at::Tensor& gram, int64_t size) {
  const int64_t columns = gram.size(0), blocks = (columns + size - 1) / size;
  at::Tensor out = at::zeros({blocks, size, size}, at::kFloat);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = block * size, width = std::min(size, columns - first);
    out[block]
        .narrow(0, 0, width)
        .narrow(1, 0, width)
        .copy_(gram.narrow(0, first, width).narrow(1, first, width));
  }
  return out;
}

}  // namespace

at::Tensor activation_scales(const at::Tensor& mean_magnitudes, double ratio) {
  // Clamped before and not after the power, so that ratio 0 is 1 everywhere.
  const at::Tensor scales = mean_magnitudes.to(at::kDouble).clamp_min(1e-4).pow(ratio);
  return scales / (scales.max() * scales.min()).sqrt();
}

double output_error(const at::Tensor& error, const at::Tensor& gram) {
  const int64_t groups = gram.size(0);
  const at::Tensor rows = error.to(at::kFloat).view({groups, -1, error.size(1)});
  return at::bmm(rows, gram.to(at::kFloat)).mul_(rows).sum(at::kDouble).item<double>();
}

ScaleSearch search_scales(const std::vector<AwareLayer>& layers, const at::Tensor& mean_magnitudes,
                          const RoundToNearest& how, int steps) {
  COMPRESS_CHECK(!layers.empty() && steps > 0, "a search has layers and steps");
  ScaleSearch best;
  best.error = std::numeric_limits<double>::infinity();
  for (int step = 0; step < steps; ++step) {
    const double ratio = static_cast<double>(step) / steps;
    const at::Tensor scales = activation_scales(mean_magnitudes, ratio);
    double error = 0;
    for (const AwareLayer& layer : layers) {
      const at::Tensor factors = in_shape(scales, layer);
      const at::Tensor weight = layer.weight.to(at::kFloat);
      const at::Tensor decoded = rounded(weight * factors, layer.output_dim, how);
      const at::Tensor spread = as_matrix(factors.expand_as(weight).contiguous(), layer.output_dim);
      error += output_error(decoded / spread - as_matrix(weight, layer.output_dim), layer.gram);
    }
    if (step == 0) best.error_before = error;
    if (error < best.error) best = {scales, ratio, error, best.error_before};
  }
  return best;
}

at::Tensor clip_weight(const AwareLayer& layer, const RoundToNearest& how) {
  const at::Tensor matrix = as_matrix(layer.weight.to(at::kFloat), layer.output_dim);
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  const bool grouped = how.granularity.kind == Granularity::Kind::kGroup;
  const int64_t size = grouped ? std::min(how.granularity.group_size, columns) : columns;
  const int64_t blocks = (columns + size - 1) / size, inputs = layer.gram.size(0);
  const auto cut = [&](const at::Tensor& x) {  // [rows, blocks, size]
    return at::constant_pad_nd(x, {0, blocks * size - columns}).view({rows, blocks, size});
  };
  const at::Tensor magnitudes = cut(matrix).abs().amax(2, true);
  std::vector<at::Tensor> grams;
  for (const at::Tensor& gram : layer.gram.unbind()) grams.push_back(diagonal_blocks(gram, size));
  const auto clipped_to = [&](const at::Tensor& limits) {
    const at::Tensor wide =
        limits.expand({rows, blocks, size}).reshape({rows, blocks * size}).narrow(1, 0, columns);
    return at::minimum(at::maximum(matrix, -wide), wide);
  };
  at::Tensor least = at::full({rows, blocks, 1}, std::numeric_limits<float>::infinity());
  at::Tensor limits = magnitudes;
  for (int step = 0; step < 10; ++step) {
    const at::Tensor tried = magnitudes * (1 - step / 20.0);
    const at::Tensor error = cut(rounded(clipped_to(tried), 0, how) - matrix);
    std::vector<at::Tensor> sums;
    for (int64_t part = 0; part < inputs; ++part) {
      const at::Tensor mine =
          error.narrow(0, part * (rows / inputs), rows / inputs).transpose(0, 1);
      sums.push_back(at::bmm(mine, grams[part]).mul_(mine).sum(2, true).transpose(0, 1));
    }
    const at::Tensor found = at::cat(sums);
    limits = at::where(found.lt(least), tried, limits);
    least = at::minimum(least, found);
  }
  return from_matrix(clipped_to(limits).contiguous(), layer.weight.sizes().vec(), layer.output_dim)
      .to(layer.weight.scalar_type());
}

}  // namespace compress
