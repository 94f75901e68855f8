// Eight vectors of sums stay in registers while the panels stream by: half of AVX2's sixteen.

#include "passes/second_order/panel_product.h"

#include "compress/multiversion.h"

#include <cstring>

namespace compress {
namespace {

template <class T>
struct Vectors {
  typedef T Vector __attribute__((vector_size(32)));
  static constexpr int64_t kWidth = 32 / sizeof(T);
};

// Two vectors of lanes of each row; `lanes` is the length of the rows.
template <class T, int64_t lanes>
__attribute__((always_inline)) inline void subtract_pair(const T* left, int64_t stride,
                                                         const T* right, int64_t count, T* sums) {
  using Vector = typename Vectors<T>::Vector;
  constexpr int64_t kWidth = Vectors<T>::kWidth;
  Vector sum[kPanelColumns][2];
#pragma GCC unroll 4
  for (int64_t i = 0; i < kPanelColumns; ++i) std::memcpy(sum[i], sums + i * lanes, sizeof sum[i]);
  for (int64_t k = 0; k < count; ++k) {
    Vector low, high;
    std::memcpy(&low, right + k * lanes, sizeof low);
    std::memcpy(&high, right + k * lanes + kWidth, sizeof high);
#pragma GCC unroll 4
    for (int64_t i = 0; i < kPanelColumns; ++i) {
      const T factor = left[k * stride + i];
      sum[i][0] -= low * factor;
      sum[i][1] -= high * factor;
    }
  }
#pragma GCC unroll 4
  for (int64_t i = 0; i < kPanelColumns; ++i) std::memcpy(sums + i * lanes, sum[i], sizeof sum[i]);
}

template <class T, int64_t lanes>
__attribute__((always_inline)) inline void subtract(const T* left, int64_t stride, const T* right,
                                                    int64_t count, T* sums) {
  for (int64_t lane = 0; lane < lanes; lane += 2 * Vectors<T>::kWidth) {
    subtract_pair<T, lanes>(left, stride, right + lane, count, sums + lane);
  }
}

static_assert(kFloatLanes % (2 * Vectors<float>::kWidth) == 0);
static_assert(kDoubleLanes % (2 * Vectors<double>::kWidth) == 0);

COMPRESS_MULTIVERSION
void subtract_floats(const float* left, int64_t stride, const float* right, int64_t count,
                     float* sums) {
  subtract<float, kFloatLanes>(left, stride, right, count, sums);
}

COMPRESS_MULTIVERSION
void subtract_doubles(const double* left, int64_t stride, const double* right, int64_t count,
                      double* sums) {
  subtract<double, kDoubleLanes>(left, stride, right, count, sums);
}

}  // namespace

void subtract_products(const float* left, int64_t stride, const float* right, int64_t count,
                       float* sums) {
  subtract_floats(left, stride, right, count, sums);
}

void subtract_products(const double* left, int64_t stride, const double* right, int64_t count,
                       double* sums) {
  subtract_doubles(left, stride, right, count, sums);
}

}  // namespace compress
