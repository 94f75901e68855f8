// A table of statistics.

#include "compress/calibrate/statistics.h"

#include "compress/error.h"

#include <utility>

namespace compress {

const at::Tensor& Statistics::at(const Wish& wish) const {
  const auto found = tensors_.find(wish);
  COMPRESS_CHECK(found != tensors_.end(), "no statistic of `" + wish.value + "` was wished for");
  return found->second;
}

void Statistics::set(const Wish& wish, at::Tensor tensor) { tensors_[wish] = std::move(tensor); }

}  // namespace compress
