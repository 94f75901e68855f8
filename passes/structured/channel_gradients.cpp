// One backward pass a batch.

#include "passes/structured/channel_gradients.h"

#include "compress/error.h"
#include "compress/train/environment.h"
#include "compress/train/label_losses.h"

#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>

#include <fmt/format.h>

namespace compress {
namespace {

constexpr int64_t kBatch = 32;

DatasetPtr labelled(const PassContext& context, const std::string& entry) {
  if (context.training == nullptr || !context.training->has_data(entry)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("the criterion `taylor` needs labelled data, and there is no entry `{}`",
                    entry),
        "data", "name an entry of the recipe's `data`");
  }
  DatasetPtr data = context.training->open_data(entry, false);
  if (data->info().labeled) return data;
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("the samples of `{}` have no labels, which `taylor` needs", data->info().name),
      "data", "name an entry with labels, or take another criterion");
}

}  // namespace

std::vector<DimScores> gradient_scores(const Model& model, const PassContext& context,
                                       const std::string& entry) {
  const DatasetPtr data = labelled(context, entry);
  Model own = model.clone(true);
  own.eval();
  std::vector<at::Tensor> parameters;
  for (NamedTensor& named : own.mutable_tensors()) {
    if (named.role != TensorRole::kParameter || !named.tensor.is_floating_point()) continue;
    named.tensor.set_requires_grad(true);
    parameters.push_back(named.tensor);
  }
  TaylorScores scores;
  const c10::AutoGradMode with_gradients(true);
  for (int64_t first = 0; first < data->size(); first += kBatch) {
    const Batch batch = data->get_range(first, kBatch);
    cross_entropy(own.forward(batch.inputs)[0], batch.labels).backward();
    scores.add(own);
    for (at::Tensor& parameter : parameters) parameter.mutable_grad().reset();
  }
  // The scores speak of the values of `model`, which have the same names.
  return scores.scores(model);
}

}  // namespace compress
