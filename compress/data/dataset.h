// Data sets: where batches for training, calibration and evaluation come from.
//
// A data set gives batches of samples by index. Images stay bytes until a batch is made.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace compress {

/// Some samples, ready for a model.
struct Batch {
  std::vector<at::Tensor> inputs;  ///< the model's inputs, samples along dimension 0
  /// Classes: int64 [n], or [n, length] for tokens. Targets of a regression: floating, [n, ...].
  /// Undefined: no labels.
  at::Tensor labels;
  std::vector<int64_t> indices;  ///< which samples of the data set these are

  int64_t size() const { return static_cast<int64_t>(indices.size()); }
};

/// Which of its random variants an augmented sample shall take: the same numbers, the same pixels.
struct Draw {
  uint64_t seed = 0;
  uint64_t epoch = 0;
};

/// What is known about every sample of a data set.
struct DatasetInfo {
  std::string name;                               ///< for messages: "cifar10:test", or a path
  std::vector<std::vector<int64_t>> input_sizes;  ///< of one sample, without the batch dimension
  int64_t classes = 0;                            ///< 0: no labels, or not a classification
  std::vector<std::string> class_names;           ///< empty, or one for each class
  bool augmented = false;                         ///< whether samples depend on the Draw
  bool labeled = false;  ///< whether batches have labels: classes or, floating, targets
};

/// A list of samples. Reading is thread-safe and depends on nothing but the arguments.
class Dataset {
 public:
  explicit Dataset(DatasetInfo info) : info_(std::move(info)) {}
  virtual ~Dataset() = default;
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  const DatasetInfo& info() const { return info_; }
  virtual int64_t size() const = 0;

  /// The samples at `indices`, in that order. Every index must be in [0, size()). Throws Error if a
  /// sample cannot be read.
  virtual Batch get(const std::vector<int64_t>& indices, const Draw& draw = {}) const = 0;

  /// Samples `first` .. `first + count`, cut at the end of the data set.
  Batch get_range(int64_t first, int64_t count) const;

 private:
  DatasetInfo info_;
};

using DatasetPtr = std::shared_ptr<const Dataset>;

/// A view of the samples at `indices` of another data set. Its batches number samples by the view.
DatasetPtr subset(DatasetPtr base, std::vector<int64_t> indices);

/// `count` samples chosen at random by `seed`, and all the others, each in the order of the base.
/// Throws Error(kInvalidArgument) if the data set has fewer.
std::pair<DatasetPtr, DatasetPtr> split(const DatasetPtr& base, int64_t count, uint64_t seed);

}  // namespace compress
