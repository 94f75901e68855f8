// Tests of passes/quantize/uniform_grid.

#include "passes/quantize/uniform_grid.h"

#include "passes/quantize/round_to_nearest.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace compress {
namespace {

double error_of(const std::vector<float>& row, double scale, double zero, double last) {
  double error = 0;
  for (const float x : row) {
    const double code = std::clamp(std::nearbyint(x / scale) + zero, 0.0, last);
    error += std::pow(std::abs((code - zero) * scale - x), 2.4);
  }
  return error;
}

// One candidate after the other, in double precision.
double least_error(const std::vector<float>& row, int bits, bool symmetric) {
  const double last = (1 << bits) - 1, half = 1 << (bits - 1);
  const double low = std::min(0.f, *std::min_element(row.begin(), row.end()));
  const double high = std::max(0.f, *std::max_element(row.begin(), row.end()));
  double best = std::numeric_limits<double>::infinity();
  for (int percent = 1; percent <= 100; ++percent) {
    const double share = percent / 100.0;
    const double scale =
        share * (symmetric ? std::max(-low, high) / (half - 1) : (high - low) / last);
    const double zero = symmetric ? half : std::nearbyint(-low * share / scale);
    best = std::min(best, error_of(row, scale, zero, last));
  }
  return best;
}

TEST(UniformGrid, FindsTheLeastErrorOfAllShrunkRanges) {
  at::manual_seed(1);
  const at::Tensor matrix = at::randn({5, 60}).pow(3);
  for (const bool symmetric : {true, false}) {
    for (const int bits : {2, 3, 4, 8}) {
      const UniformGrid grid = least_error_grid(matrix, bits, symmetric);
      for (int64_t r = 0; r < matrix.size(0); ++r) {
        const std::vector<float> row(matrix[r].data_ptr<float>(), matrix[r].data_ptr<float>() + 60);
        const double found = error_of(row, grid.scale[r].item<float>(), grid.zero[r].item<float>(),
                                      static_cast<double>(grid.last()));
        // Rounding in float may order two almost equal candidates otherwise.
        EXPECT_NEAR(found, least_error(row, bits, symmetric), 1e-4 * found) << bits << symmetric;
      }
    }
  }
}

TEST(UniformGrid, IsTheGridOfRoundToNearest) {
  at::manual_seed(2);
  const at::Tensor weight = at::randn({4, 3, 3, 3});
  for (const bool symmetric : {true, false}) {
    const QuantizedTensor nearest = round_to_nearest(weight, 0, {3, symmetric});
    const UniformGrid grid = grid_of(nearest);
    const at::Tensor codes = nearest_codes(as_matrix(weight, 0), grid);
    const QuantizedTensor again =
        with_codes(codes, grid, weight.sizes().vec(), 0, weight.scalar_type());
    EXPECT_TRUE(at::equal(dequantize(again), dequantize(nearest)));
    EXPECT_EQ(again.bits_on_disk(), nearest.bits_on_disk());
  }
}

TEST(UniformGrid, TakesRowsOfZeros) {
  const UniformGrid grid = least_error_grid(at::zeros({2, 4}), 4, false);
  EXPECT_TRUE(at::equal(grid.scale, at::ones({2, 1})));
}

}  // namespace
}  // namespace compress
