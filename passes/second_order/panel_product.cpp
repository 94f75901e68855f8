// Eight vectors of sums stay in registers while the panels stream by.

#include "passes/second_order/panel_product.h"

#include "compress/multiversion.h"

#include <cstring>

namespace compress {
namespace {

template <class T>
struct Vectors {
  typedef T Vector __attribute__((vector_size(64)));
  static constexpr int64_t kWidth = 64 / sizeof(T);
};

template <class T>
__attribute__((always_inline)) inline void subtract(const T* left, int64_t stride, const T* right,
                                                    int64_t count, T* sums) {
  using Vector = typename Vectors<T>::Vector;
  constexpr int64_t kWidth = Vectors<T>::kWidth;
  Vector sum[kPanelColumns][2];
  std::memcpy(sum, sums, sizeof sum);
  for (int64_t k = 0; k < count; ++k) {
    Vector low, high;
    std::memcpy(&low, right + 2 * k * kWidth, sizeof low);
    std::memcpy(&high, right + (2 * k + 1) * kWidth, sizeof high);
#pragma GCC unroll 4
    for (int64_t i = 0; i < kPanelColumns; ++i) {
      const T factor = left[k * stride + i];
      sum[i][0] -= low * factor;
      sum[i][1] -= high * factor;
    }
  }
  std::memcpy(sums, sum, sizeof sum);
}

static_assert(kFloatLanes == 2 * Vectors<float>::kWidth);
static_assert(kDoubleLanes == 2 * Vectors<double>::kWidth);

COMPRESS_MULTIVERSION
void subtract_floats(const float* left, int64_t stride, const float* right, int64_t count,
                     float* sums) {
  subtract(left, stride, right, count, sums);
}

COMPRESS_MULTIVERSION
void subtract_doubles(const double* left, int64_t stride, const double* right, int64_t count,
                      double* sums) {
  subtract(left, stride, right, count, sums);
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
