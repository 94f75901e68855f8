// Metrics of a model on a data set.

#pragma once

#include "compress/data/dataset.h"
#include "compress/model.h"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// What is measured. Predictions are the model's first output.
enum class Metric {
  kTop1,        ///< percent of samples whose highest logit is the label's
  kTop5,        ///< percent of samples whose label is among the five highest logits
  kLoss,        ///< mean cross-entropy, in nats
  kPerplexity,  ///< exp of the mean cross-entropy per token
  kMse,         ///< mean squared error over all elements of all samples
  kPsnr,        ///< peak signal-to-noise ratio, 10 log10(peak^2 / kMse) dB; infinite without error
};
inline std::vector<std::string_view> option_names(Metric) {
  return {"top1", "top5", "loss", "perplexity", "mse", "psnr"};
}

/// The metric of that name. Throws Error(kInvalidArgument) with the nearest one.
Metric parse_metric(std::string_view name);
/// Whether the metric compares the output with a target element by element, not with classes.
bool compares_targets(Metric metric);
/// Whether more of the metric is better.
bool higher_is_better(Metric metric);
/// "top-1 accuracy" and its unit "%", for tables.
std::string metric_title(Metric metric);
/// A figure with the decimals that the metric deserves.
std::string metric_text(Metric metric, double figure);

struct EvaluateOptions {
  int64_t batch_size = 250;
  int loader_threads = 1;
  /// The largest signal, for kPsnr: 1 for pixels in [0, 1]. A peak p adds 20 log10(p) dB.
  double peak = 1.0;
  /// Runs the model in the place of `forward`: a plan of the engine, another runtime.
  std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)> run;
  /// Called after every batch.
  std::function<void(int64_t samples_done, int64_t samples_total)> on_progress;
};

/// One figure for each metric, over all samples of the data set, in the mode and on the device
/// that the model is in.
///
/// Metrics of classes: logits are [n, classes] with labels [n], or [n, length, classes] with labels
/// [n, length]. Metrics of targets: the target is the floating label, or the input itself if the
/// data set has no labels (an autoencoder), and of the same sizes as the output. PSNR is that of
/// the mean squared error of the whole data set, not a mean over samples.
///
/// Throws Error(kInvalidArgument) before the run if the samples do not fit the model's input or
/// lack the labels, in the first batch if labels are not what the metric compares with or sizes
/// differ; for labels out of range; Error(kRunFailed) for outputs that are not finite.
std::vector<double> evaluate(const Model& model, const DatasetPtr& data,
                             const std::vector<Metric>& metrics,
                             const EvaluateOptions& options = {});

/// Throws Error(kInvalidArgument) saying which input does not fit which sample sizes.
void require_fit(const Model& model, const DatasetInfo& data);

/// `wanted`, or the batch size that the model has baked in; throws Error(kInvalidArgument) if that
/// does not divide the number of samples.
int64_t fitting_batch_size(const Model& model, const Dataset& data, int64_t wanted);

}  // namespace compress
