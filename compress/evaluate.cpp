// Metrics of a model on a data set.

#include "compress/evaluate.h"

#include "compress/data/loader.h"
#include "compress/error.h"

#include <ATen/Context.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/topk.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

namespace compress {
namespace {

// Sums over samples (or tokens) of one batch.
struct Sums {
  int64_t count = 0;
  double top1 = 0, top5 = 0, loss = 0;
};

std::string sizes_text(const std::vector<Dim>& dims) {
  std::vector<std::string> parts;
  for (const Dim& dim : dims)
    parts.push_back(dim.is_symbolic() ? dim.symbol : std::to_string(dim.size));
  return fmt::format("[{}]", fmt::join(parts, ", "));
}

// Whether a sample of `sizes` (without the batch dimension) can be an input of `dims`.
bool fits(const std::vector<int64_t>& sizes, const std::vector<Dim>& dims) {
  if (dims.size() != sizes.size() + 1) return false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (!dims[i + 1].is_symbolic() && dims[i + 1].size != sizes[i]) return false;
  }
  return true;
}

void add_batch(const at::Tensor& output, const at::Tensor& given_labels, Sums& sums) {
  const int64_t classes = output.size(-1);
  const at::Tensor logits = output.reshape({-1, classes}).to(at::kFloat);
  const at::Tensor labels = given_labels.reshape({-1}).to(at::kLong);
  if (logits.size(0) != labels.size(0)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("the model gives {} predictions for {} labels", logits.size(0), labels.size(0)),
        {}, "metrics need one row of logits for each label");
  }
  const int64_t lowest = labels.min().item<int64_t>(), highest = labels.max().item<int64_t>();
  if (lowest < 0 || highest >= classes) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("label {} is outside the model's {} classes",
                            lowest < 0 ? lowest : highest, classes));
  }
  if (!at::isfinite(logits).all().item<bool>()) {
    throw Error(ErrorCode::kRunFailed, "the model's output has elements that are NaN or infinite");
  }
  sums.count += labels.size(0);
  sums.top1 += logits.argmax(1).eq(labels).sum().item<double>();
  const at::Tensor best = std::get<1>(logits.topk(std::min<int64_t>(5, classes), 1));
  sums.top5 += best.eq(labels.unsqueeze(1)).any(1).sum().item<double>();
  sums.loss += at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum).item<double>();
}

double figure(Metric metric, const Sums& sums) {
  const auto count = static_cast<double>(sums.count);
  switch (metric) {
    case Metric::kTop1:
      return 100.0 * sums.top1 / count;
    case Metric::kTop5:
      return 100.0 * sums.top5 / count;
    case Metric::kLoss:
      return sums.loss / count;
    case Metric::kPerplexity:
      return std::exp(sums.loss / count);
  }
  return 0;
}

}  // namespace

Metric parse_metric(std::string_view name) {
  const std::vector<std::string_view> known = option_names(Metric{});
  for (size_t i = 0; i < known.size(); ++i) {
    if (known[i] == name) return static_cast<Metric>(i);
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("there is no metric `{}`", name), {},
              fmt::format("one of: {}", fmt::join(known, ", ")));
}

std::string metric_text(Metric metric, double figure) {
  return higher_is_better(metric) ? fmt::format("{:.2f}", figure) : fmt::format("{:.4f}", figure);
}

bool higher_is_better(Metric metric) { return metric == Metric::kTop1 || metric == Metric::kTop5; }

std::string metric_title(Metric metric) {
  switch (metric) {
    case Metric::kTop1:
      return "top-1 accuracy, %";
    case Metric::kTop5:
      return "top-5 accuracy, %";
    case Metric::kLoss:
      return "cross-entropy, nats";
    case Metric::kPerplexity:
      return "perplexity";
  }
  return {};
}

void require_fit(const Model& model, const DatasetInfo& data) {
  const std::vector<Value*>& inputs = model.graph().inputs();
  if (inputs.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the model is a bare set of tensors and cannot be run",
                {}, "give its architecture with --arch (see: lathe models)");
  }
  if (inputs.size() != data.input_sizes.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the model takes {} inputs, a sample of {} has {}", inputs.size(),
                            data.name, data.input_sizes.size()));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i]->type.sizes || fits(data.input_sizes[i], *inputs[i]->type.sizes)) continue;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a sample of {} is [{}], the model's input `{}` is {}", data.name,
                            fmt::join(data.input_sizes[i], ", "), inputs[i]->name(),
                            sizes_text(*inputs[i]->type.sizes)));
  }
}

std::vector<double> evaluate(const Model& model, const DatasetPtr& data,
                             const std::vector<Metric>& metrics, const EvaluateOptions& options) {
  require_fit(model, data->info());
  if (!data->info().labeled) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} has no labels to compare with", data->info().name));
  }
  // A model with a fixed batch size gets batches of that size and is not asked about the rest.
  const auto& sizes = model.graph().inputs().front()->type.sizes;
  const bool fixed = sizes && !sizes->empty() && !sizes->front().is_symbolic();
  const int64_t batch_size = fixed ? sizes->front().size : options.batch_size;
  if (fixed && data->size() % batch_size != 0) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format(
            "the model's batch size {} is baked in and does not divide the {} samples of {}",
            batch_size, data->size(), data->info().name),
        {}, "export the model with a dynamic batch dimension");
  }
  LoaderOptions loader_options;
  loader_options.batch_size = batch_size;
  loader_options.threads = options.loader_threads;
  Loader loader(data, loader_options);
  const at::NoGradGuard no_grad;
  const c10::Device device = model.device();
  Sums sums;
  int64_t done = 0;
  while (std::optional<Batch> batch = loader.next()) {
    for (at::Tensor& input : batch->inputs) input = input.to(device);
    const std::vector<at::Tensor> outputs = model.forward(batch->inputs);
    if (outputs.empty()) throw Error(ErrorCode::kInvalidArgument, "the model returns no tensor");
    try {
      add_batch(outputs.front().cpu(), batch->labels, sums);
    } catch (const Error& error) {
      throw error.where().empty() ? error.within(data->info().name) : error;
    }
    done += batch->size();
    if (options.on_progress) options.on_progress(done, data->size());
  }
  std::vector<double> figures;
  for (const Metric metric : metrics) figures.push_back(figure(metric, sums));
  return figures;
}

}  // namespace compress
