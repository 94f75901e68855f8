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

#include <algorithm>
#include <cmath>
#include <optional>

namespace compress {
namespace {

// Sums over the samples so far.
struct Sums {
  int64_t count = 0;  // samples, or tokens
  double top1 = 0, top5 = 0, loss = 0;
  int64_t elements = 0;
  double squared_error = 0;
};

// The first of `metrics` that compares with targets, or with classes.
std::optional<Metric> first_of(const std::vector<Metric>& metrics, bool targets) {
  const auto found = std::find_if(metrics.begin(), metrics.end(), [&](Metric metric) {
    return compares_targets(metric) == targets;
  });
  return found == metrics.end() ? std::nullopt : std::optional(*found);
}

std::string_view name_of(Metric metric) {
  return option_names(Metric{})[static_cast<size_t>(metric)];
}

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

void add_classes(const at::Tensor& output, const at::Tensor& given_labels, Sums& sums) {
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

void add_targets(const at::Tensor& output, const at::Tensor& target, bool labeled, Sums& sums) {
  const char* what = labeled ? "targets" : "inputs, which are the targets,";
  if (output.sizes() != target.sizes()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the model's output is [{}], the {} are [{}]",
                            fmt::join(output.sizes(), ", "), what, fmt::join(target.sizes(), ", ")),
                {}, "mse and psnr compare element with element");
  }
  const at::Tensor wide = output.to(at::kDouble), wide_target = target.to(at::kDouble);
  if (!at::isfinite(wide).all().item<bool>()) {
    throw Error(ErrorCode::kRunFailed, "the model's output has elements that are NaN or infinite");
  }
  if (!at::isfinite(wide_target).all().item<bool>()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the {} have elements that are NaN or infinite", what));
  }
  sums.elements += wide.numel();
  sums.squared_error += wide.sub(wide_target).square_().sum().item<double>();
}

// Whether there is something to compare with.
void check_labeled(const DatasetInfo& data, const std::vector<Metric>& metrics) {
  if (data.labeled) return;
  if (const std::optional<Metric> classes = first_of(metrics, false)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} has no labels to compare with", data.name), {},
                fmt::format("{} needs classes; mse and psnr compare with the input where there "
                            "are no labels",
                            name_of(*classes)));
  }
  if (data.input_sizes.size() != 1) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} has no labels to compare with, and {} inputs", data.name,
                            data.input_sizes.size()),
                {}, "only a single input can be the target itself");
  }
}

// Whether the labels are what the metrics compare with.
void check_labels(const at::Tensor& labels, const std::vector<Metric>& metrics) {
  if (!labels.defined()) return;  // checked before the run
  const bool floating = at::isFloatingType(labels.scalar_type());
  const std::optional<Metric> misfit = first_of(metrics, !floating);
  if (!misfit) return;
  const std::string found = fmt::format("labels [{}] of dtype {}", fmt::join(labels.sizes(), ", "),
                                        c10::toString(labels.scalar_type()));
  if (floating) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("{} are targets, and {} compares with classes", found, name_of(*misfit)), {},
        "the metrics of targets are mse and psnr");
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{} are classes, and {} compares with targets", found, name_of(*misfit)),
              {},
              "targets are of a floating dtype; the metrics of classes are top1, top5, loss "
              "and perplexity");
}

void add_batch(const at::Tensor& output, const Batch& batch, const at::Tensor& input,
               const std::vector<Metric>& metrics, Sums& sums) {
  check_labels(batch.labels, metrics);
  const bool labeled = batch.labels.defined();
  if (first_of(metrics, false)) add_classes(output, batch.labels, sums);
  if (first_of(metrics, true)) add_targets(output, labeled ? batch.labels : input, labeled, sums);
}

double figure(Metric metric, const Sums& sums, double peak) {
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
    case Metric::kMse:
      return sums.squared_error / static_cast<double>(sums.elements);
    case Metric::kPsnr:
      return 10.0 * std::log10(peak * peak / figure(Metric::kMse, sums, peak));
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
  // A squared error has no scale of its own: 0.00012 is as likely as 1200.
  if (metric == Metric::kMse) return fmt::format("{:.4g}", figure);
  return higher_is_better(metric) ? fmt::format("{:.2f}", figure) : fmt::format("{:.4f}", figure);
}

bool compares_targets(Metric metric) { return metric == Metric::kMse || metric == Metric::kPsnr; }

bool higher_is_better(Metric metric) {
  return metric == Metric::kTop1 || metric == Metric::kTop5 || metric == Metric::kPsnr;
}

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
    case Metric::kMse:
      return "mean squared error";
    case Metric::kPsnr:
      return "PSNR, dB";
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

int64_t fitting_batch_size(const Model& model, const Dataset& data, int64_t wanted) {
  const auto& sizes = model.graph().inputs().front()->type.sizes;
  if (!sizes || sizes->empty() || sizes->front().is_symbolic()) return wanted;
  const int64_t baked = sizes->front().size;
  if (baked > 0 && data.size() % baked == 0) return baked;
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("the model's batch size {} is baked in and does not divide the {} samples of {}",
                  baked, data.size(), data.info().name),
      {}, "export the model with a dynamic batch dimension");
}

std::vector<double> evaluate(const Model& model, const DatasetPtr& data,
                             const std::vector<Metric>& metrics, const EvaluateOptions& options) {
  require_fit(model, data->info());
  check_labeled(data->info(), metrics);
  if (!(options.peak > 0) || !std::isfinite(options.peak)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is not a peak, expected a number above 0", options.peak), "peak");
  }
  LoaderOptions loader_options;
  loader_options.batch_size = fitting_batch_size(model, *data, options.batch_size);
  loader_options.threads = options.loader_threads;
  Loader loader(data, loader_options);
  const at::NoGradGuard no_grad;
  const c10::Device device = model.device();
  Sums sums;
  int64_t done = 0;
  while (std::optional<Batch> batch = loader.next()) {
    const at::Tensor input = batch->inputs.front();
    for (at::Tensor& moved : batch->inputs) moved = moved.to(device);
    const std::vector<at::Tensor> outputs =
        options.run ? options.run(batch->inputs) : model.forward(batch->inputs);
    if (outputs.empty()) throw Error(ErrorCode::kInvalidArgument, "the model returns no tensor");
    try {
      add_batch(outputs.front().cpu(), *batch, input, metrics, sums);
    } catch (const Error& error) {
      throw error.where().empty() ? error.within(data->info().name) : error;
    }
    done += batch->size();
    if (options.on_progress) options.on_progress(done, data->size());
  }
  std::vector<double> figures;
  for (const Metric metric : metrics) figures.push_back(figure(metric, sums, options.peak));
  return figures;
}

}  // namespace compress
