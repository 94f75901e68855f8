// Statistics of values, collected in one run over calibration data for all that asked.

#pragma once

#include <ATen/core/Tensor.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace compress {

class Model;
class Value;

/// What can be known of a value after a run over data. All but kMovingMinMax depend on the samples
/// only, whatever their order and the size of batches, to rounding.
enum class Statistic {
  kMinMax,          ///< float [2]: least and greatest element
  kMovingMinMax,    ///< float [2]: moving average of the samples' extremes, see kMovingRate
  kMean,            ///< double []: mean of all elements
  kHistogram,       ///< counts of elements, see histogram.h
  kChannelMinMax,   ///< float [2, channels]: extremes over all dimensions but `channel_dim`
  kChannelMean,     ///< double [channels]: mean over all dimensions but that one
  kChannelAbsMean,  ///< double [channels]: mean of absolute values
  kChannelNorms,    ///< double [channels]: root of the sum of squares
  /// double [groups, columns, columns]: mean of the outer products of the rows that the weight of a
  /// layer is multiplied with (layer_input.h). The value is the layer's output.
  kInputGram,
};

/// Each sample moves the averages of kMovingMinMax by this share of its distance.
inline constexpr double kMovingRate = 0.01;

/// One statistic of one value.
struct Wish {
  std::string value;  ///< its name in the graph
  Statistic statistic = Statistic::kMinMax;
  int64_t channel_dim = 1;  ///< of the channel statistics; negative counts from the end

  auto operator<=>(const Wish&) const = default;
};
using Wishes = std::vector<Wish>;

/// The answers.
class Statistics {
 public:
  /// Throws std::logic_error for what was not wished for.
  const at::Tensor& at(const Wish& wish) const;
  bool has(const Wish& wish) const { return tensors_.count(wish) > 0; }
  void set(const Wish& wish, at::Tensor tensor);
  size_t size() const { return tensors_.size(); }
  /// How many samples the data had: the sum over batches of the first input's first dimension.
  int64_t samples = 0;

 private:
  std::map<Wish, at::Tensor> tensors_;
};

/// Calls its argument with the model inputs of one batch after another.
using BatchSource = std::function<void(const std::function<void(const std::vector<at::Tensor>&)>&)>;

/// Runs the model once over all batches, without gradients, and answers all wishes. Values are
/// looked at as they are computed; none is kept. Throws Error(kInvalidArgument) for a value that
/// the graph lacks and for a source without a batch, Error(kRunFailed) when a run fails or a value
/// has an element that is not finite.
Statistics collect_statistics(const Model& model, const Wishes& wishes, const BatchSource& batches);

}  // namespace compress
