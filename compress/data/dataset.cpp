// Views of data sets: a chosen part, and the rest.

#include "compress/data/dataset.h"

#include "compress/data/random.h"
#include "compress/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace compress {
namespace {

class Subset final : public Dataset {
 public:
  Subset(DatasetPtr base, std::vector<int64_t> indices)
      : Dataset(base->info()), base_(std::move(base)), indices_(std::move(indices)) {}

  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }

  Batch get(const std::vector<int64_t>& indices, const Draw& draw) const override {
    std::vector<int64_t> base_indices;
    base_indices.reserve(indices.size());
    for (const int64_t index : indices) {
      COMPRESS_CHECK(index >= 0 && index < size(), "sample index out of range");
      base_indices.push_back(indices_[static_cast<size_t>(index)]);
    }
    Batch batch = base_->get(base_indices, draw);
    batch.indices = indices;
    return batch;
  }

 private:
  DatasetPtr base_;
  std::vector<int64_t> indices_;
};

}  // namespace

Batch Dataset::get_range(int64_t first, int64_t count) const {
  COMPRESS_CHECK(first >= 0 && count >= 0, "a range of samples is not negative");
  const int64_t last = first + std::min(count, std::max<int64_t>(size() - first, 0));
  std::vector<int64_t> indices(static_cast<size_t>(last - first));
  std::iota(indices.begin(), indices.end(), first);
  return get(indices);
}

DatasetPtr subset(DatasetPtr base, std::vector<int64_t> indices) {
  for (const int64_t index : indices) {
    COMPRESS_CHECK(index >= 0 && index < base->size(), "a subset's index is out of range");
  }
  return std::make_shared<Subset>(std::move(base), std::move(indices));
}

std::pair<DatasetPtr, DatasetPtr> split(const DatasetPtr& base, int64_t count, uint64_t seed) {
  if (count < 0 || count > base->size()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} samples are asked of {}, which has {}", count, base->info().name,
                            base->size()),
                "count");
  }
  std::vector<int64_t> order = permutation(base->size(), seed, 0);
  std::vector<int64_t> rest(order.begin() + count, order.end());
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  std::sort(rest.begin(), rest.end());
  return {subset(base, std::move(order)), subset(base, std::move(rest))};
}

}  // namespace compress
