// One run over calibration data with streaming observers.

#include "compress/calibrate/histogram.h"
#include "compress/calibrate/layer_input.h"
#include "compress/calibrate/statistics.h"
#include "compress/error.h"
#include "compress/graph/interpreter.h"
#include "compress/model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

namespace compress {
namespace {

// One statistic of one value. Sums in double: a float accumulator loses digits after some thousand
// batches.
class Accumulator {
 public:
  /// `layer` is the producer of the value that the wish names; only kInputGram looks at it.
  Accumulator(const Wish& wish, const Node* layer) : wish_(wish), layer_(layer) {}

  void add(const at::Tensor& values) {
    if (values.numel() == 0) return;
    switch (wish_.statistic) {
      case Statistic::kMinMax:
        extremes(at::stack({values.min(), values.max()}).to(at::kFloat));
        break;
      case Statistic::kMovingMinMax:
        move(values.flatten(values.dim() > 1 ? 1 : 0).to(at::kFloat));
        break;
      case Statistic::kMean:
        accumulate(values.sum(at::kDouble));
        break;
      case Statistic::kHistogram:
        histogram_.add(values);
        break;
      case Statistic::kChannelMinMax: {
        const at::Tensor rows = channels(values).to(at::kFloat);
        extremes(at::stack({rows.amin(1), rows.amax(1)}));
        break;
      }
      case Statistic::kChannelMean:
        accumulate(channels(values).sum({1}, false, at::kDouble));
        break;
      case Statistic::kChannelAbsMean:
        accumulate(channels(values).abs().sum({1}, false, at::kDouble));
        break;
      case Statistic::kChannelNorms:
        accumulate(channels(values).to(at::kDouble).square().sum(1));
        break;
      case Statistic::kInputGram:
        gram_.add(*layer_, values);
        break;
    }
    count_ += values.numel();
  }

  /// Undefined if nothing was added.
  at::Tensor result() const {
    switch (wish_.statistic) {
      case Statistic::kHistogram:
        return histogram_.empty() ? at::Tensor() : histogram_.to_tensor();
      case Statistic::kInputGram:
        return gram_.rows == 0 ? at::Tensor() : gram_.mean();
      case Statistic::kChannelNorms:
        return state_.defined() ? state_.sqrt() : state_;
      case Statistic::kMean:
      case Statistic::kChannelMean:
      case Statistic::kChannelAbsMean:
        if (!state_.defined()) return state_;
        return state_ * (static_cast<double>(state_.numel()) / static_cast<double>(count_));
      default:
        return state_;
    }
  }

 private:
  void accumulate(const at::Tensor& sum) { state_ = state_.defined() ? state_ + sum : sum; }

  void extremes(const at::Tensor& found) {
    state_ = state_.defined()
                 ? at::stack({at::minimum(state_[0], found[0]), at::maximum(state_[1], found[1])})
                 : found;
  }

  // Sample after sample, so that batches make no difference.
  void move(const at::Tensor& samples) {
    const at::Tensor rows = samples.dim() == 1 ? samples.unsqueeze(0) : samples;
    const at::Tensor found = at::stack({rows.amin(1), rows.amax(1)}, 1).to(at::kDouble);
    for (const at::Tensor& sample : found.unbind()) {
      average_ = average_.defined() ? average_ + kMovingRate * (sample - average_) : sample;
    }
    state_ = average_.to(at::kFloat);
  }

  // [channels, all else]
  at::Tensor channels(const at::Tensor& values) const {
    const int64_t given = wish_.channel_dim;
    const int64_t dim = given < 0 ? given + values.dim() : given;
    if (dim < 0 || dim >= values.dim()) {
      throw Error(ErrorCode::kRunFailed,
                  fmt::format("a tensor of {} dimensions has no channel {}", values.dim(), given));
    }
    return values.movedim(dim, 0).flatten(1);
  }

  Wish wish_;
  const Node* layer_;
  at::Tensor state_, average_;
  Histogram histogram_;
  Gram gram_;
  int64_t count_ = 0;
};

using Observed = std::vector<std::pair<Wish, Accumulator>>;

std::unordered_map<const Value*, Observed> place_observers(const Model& model,
                                                           const Wishes& wishes) {
  std::unordered_map<const Value*, Observed> observers;
  for (const Wish& wish : wishes) {
    const Value* value = model.graph().find(wish.value);
    if (value == nullptr || value->kind() != ValueKind::kTensor) {
      throw Error(ErrorCode::kInvalidArgument, "the graph has no such tensor", wish.value);
    }
    const Node* layer = value->producer();
    if (wish.statistic == Statistic::kInputGram) {
      if (layer == nullptr || !has_layer_input_matrix(*layer)) {
        throw Error(ErrorCode::kInvalidArgument,
                    "is not the output of a linear layer or a convolution", wish.value);
      }
      value = layer_input(*layer);
    }
    Observed& here = observers[value];
    bool is_new = true;
    for (const auto& [other, accumulator] : here) is_new = is_new && other != wish;
    if (is_new) here.emplace_back(wish, Accumulator(wish, layer));
  }
  return observers;
}

void observe(const Value& value, const at::Tensor& tensor, Observed& observed) {
  // Norm and mean of what is not finite are not finite either, so looking at the first will do.
  // A sum in the tensor's own type is quick, and finite only if all elements are; one that has
  // overflowed is looked at again.
  if (tensor.is_floating_point() && tensor.numel() > 0 &&
      !at::isfinite(tensor.sum()).item<bool>() &&
      !at::isfinite(tensor.sum(at::kDouble)).item<bool>()) {
    throw Error(ErrorCode::kRunFailed, "NaN or infinite elements on calibration data",
                value.name());
  }
  for (auto& [wish, accumulator] : observed) {
    try {
      accumulator.add(tensor.detach());
    } catch (const Error& error) {
      throw error.within(value.name());
    }
  }
}

}  // namespace

Statistics collect_statistics(const Model& model, const Wishes& wishes,
                              const BatchSource& batches) {
  auto observers = place_observers(model, wishes);
  const c10::NoGradGuard no_grad;
  Interpreter interpreter(model);
  const Interpreter::Observer observer = [&](const Value& value, const c10::IValue& content) {
    const auto found = observers.find(&value);
    if (found != observers.end()) observe(value, content.toTensor(), found->second);
  };
  int64_t runs = 0, samples = 0;
  if (batches) {
    batches([&](const std::vector<at::Tensor>& inputs) {
      interpreter.run(inputs, observer);
      ++runs;
      samples += inputs.empty() || inputs[0].dim() == 0 ? 1 : inputs[0].size(0);
    });
  }
  if (runs == 0) {
    throw Error(ErrorCode::kInvalidArgument, "there is no calibration data", "",
                "add a `calibration` entry to `data`");
  }
  Statistics statistics;
  statistics.samples = samples;
  for (const auto& [value, observed] : observers) {
    for (const auto& [wish, accumulator] : observed) {
      const at::Tensor result = accumulator.result();
      if (!result.defined()) {
        throw Error(ErrorCode::kRunFailed, "was never computed, or was empty", wish.value);
      }
      statistics.set(wish, result);
    }
  }
  return statistics;
}

}  // namespace compress
