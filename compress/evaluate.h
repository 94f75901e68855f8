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
};
inline std::vector<std::string_view> option_names(Metric) {
  return {"top1", "top5", "loss", "perplexity"};
}

/// The metric of that name. Throws Error(kInvalidArgument) with the nearest one.
Metric parse_metric(std::string_view name);
/// Whether more of the metric is better.
bool higher_is_better(Metric metric);
/// "top-1 accuracy" and its unit "%", for tables.
std::string metric_title(Metric metric);
/// A figure with the decimals that the metric deserves.
std::string metric_text(Metric metric, double figure);

struct EvaluateOptions {
  int64_t batch_size = 250;
  int loader_threads = 1;
  /// Called after every batch.
  std::function<void(int64_t samples_done, int64_t samples_total)> on_progress;
};

/// One figure for each metric, over all samples of the data set, in the mode and on the device
/// that the model is in.
/// Logits are [n, classes] with labels [n], or [n, length, classes] with labels [n, length].
/// Throws Error(kInvalidArgument) before the run if the samples do not fit the model's input or
/// have no labels, Error(kRunFailed) for logits that are not finite or labels out of range.
std::vector<double> evaluate(const Model& model, const DatasetPtr& data,
                             const std::vector<Metric>& metrics,
                             const EvaluateOptions& options = {});

/// Throws Error(kInvalidArgument) saying which input does not fit which sample sizes.
void require_fit(const Model& model, const DatasetInfo& data);

}  // namespace compress
