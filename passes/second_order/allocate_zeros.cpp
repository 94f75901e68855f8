// The pieces of a convex curve rise in slope, so taking pieces of all curves by slope takes those
// of each curve in their order.

#include "passes/second_order/allocate_zeros.h"

#include "compress/error.h"

#include <algorithm>
#include <numeric>

namespace compress {
namespace {

struct Piece {
  double slope = 0;
  size_t curve = 0;
  int64_t zeros = 0;
};

void add_hull(const LossCurve& curve, size_t index, std::vector<Piece>& pieces) {
  const auto slope = [&](size_t a, size_t b) {
    return (curve.losses[b] - curve.losses[a]) /
           static_cast<double>(curve.zeros[b] - curve.zeros[a]);
  };
  std::vector<size_t> hull;
  for (size_t i = 0; i < curve.zeros.size(); ++i) {
    while (hull.size() >= 2 && slope(hull[hull.size() - 2], hull.back()) >= slope(hull.back(), i)) {
      hull.pop_back();
    }
    hull.push_back(i);
  }
  for (size_t i = 1; i < hull.size(); ++i) {
    pieces.push_back(
        {slope(hull[i - 1], hull[i]), index, curve.zeros[hull[i]] - curve.zeros[hull[i - 1]]});
  }
}

}  // namespace

std::vector<int64_t> allocate_zeros(const std::vector<LossCurve>& curves, int64_t zeros) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < curves.size(); ++i) {
    COMPRESS_CHECK(!curves[i].zeros.empty() && curves[i].zeros[0] == 0, "a curve begins at 0");
    add_hull(curves[i], i, pieces);
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.slope < b.slope; });
  std::vector<int64_t> given(curves.size(), 0);
  for (const Piece& piece : pieces) {
    const int64_t taken = std::min(zeros, piece.zeros);
    given[piece.curve] += taken;
    zeros -= taken;
  }
  return given;
}

}  // namespace compress
