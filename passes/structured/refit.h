// What is left of a layer takes over the work of what has gone.

#pragma once

#include "compress/calibrate/statistics.h"
#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// How the layers behind removed channels are changed.
enum class Compensation {
  kNone,
  kRefit,  ///< ridge regression of all their weights on the outputs of the original network
  kMerge,  ///< each removed channel's weights go to the channel that is most like it
};
inline std::vector<std::string_view> option_names(Compensation) {
  return {"none", "refit", "merge"};
}

/// Second moments of the inputs of a layer, before and after channels went, over the same data; a
/// row is a patch of a convolution.
struct InputMoments {
  at::Tensor now;       ///< double [columns now, columns now]: mean of x x^T
  at::Tensor cross;     ///< double [columns now, columns before]: mean of x z^T
  at::Tensor mean_now;  ///< double [columns now]
  at::Tensor mean_before;
};

/// The weight [rows, columns now] that minimises E |W x + b - (target z + c)|^2 + ridge m |W -
/// start|^2, m the mean of the inputs' variances; `centered`: whether there is a bias b to take up
/// differences of means. He et al., "Channel Pruning for Accelerating Very Deep Neural Networks",
/// ICCV 2017, equation 1 for given channels.
at::Tensor refitted(const InputMoments& moments, const at::Tensor& target, const at::Tensor& start,
                    double ridge, bool centered);

/// `start` plus, for each column block (channel) of `target` that is not in `kept`, its weights
/// times <x, z> / <x, x> at the kept channel x where that projection leaves least of z. `each`:
/// columns of a channel; `centered`: products are covariances, as in `refitted`. Cf. Kim et al.,
/// "Neuron Merging: Compensating for Pruned Neurons", NeurIPS 2020, who choose by the filters
/// instead of by what they do.
at::Tensor merged(const InputMoments& moments, const at::Tensor& target, const at::Tensor& start,
                  const std::vector<int64_t>& kept, int64_t each, bool centered);

/// Indices of the original's dimension that are left, by a weight's name.
struct KeptDims {
  std::vector<int64_t> outputs, inputs;
};

/// Changes the weights of all layers that hear of a removal, in the order of the graph, so that
/// their outputs come as close as can be to what the same layers of `original` give on the data.
/// A difference of means goes into the layer's bias, or into the running mean of the batch norm
/// behind it. Grouped convolutions, encoded weights and layers without an input matrix stay as they
/// are. Returns how many layers were changed.
int64_t compensate(Model& model, const Model& original, const std::map<std::string, KeptDims>& kept,
                   Compensation how, double ridge, const BatchSource& batches);

}  // namespace compress
