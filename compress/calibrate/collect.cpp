// One run over calibration data with streaming observers.

#include "compress/calibrate/statistics.h"
#include "compress/error.h"
#include "compress/graph/interpreter.h"
#include "compress/model.h"

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

namespace compress {
namespace {

// Sums in double: a float accumulator loses digits after some thousand batches.
class Accumulator {
 public:
  Accumulator(Statistic statistic, int64_t channel_dim)
      : statistic_(statistic), channel_dim_(channel_dim) {}

  void add(const at::Tensor& values) {
    if (values.numel() == 0) return;
    switch (statistic_) {
      case Statistic::kMinMax: {
        const at::Tensor extremes = at::stack({values.min(), values.max()}).to(at::kFloat);
        state_ = state_.defined() ? at::stack({at::minimum(state_[0], extremes[0]),
                                               at::maximum(state_[1], extremes[1])})
                                  : extremes;
        break;
      }
      case Statistic::kMean:
        accumulate(values.sum(at::kDouble));
        break;
      case Statistic::kChannelMean:
        accumulate(channels(values).sum({1}, false, at::kDouble));
        break;
      case Statistic::kChannelNorms:
        accumulate(channels(values).to(at::kDouble).square().sum(1));
        break;
    }
    count_ += values.numel();
  }

  at::Tensor result() const {
    if (!state_.defined() || statistic_ == Statistic::kMinMax) return state_;
    if (statistic_ == Statistic::kChannelNorms) return state_.sqrt();
    const int64_t channels = statistic_ == Statistic::kMean ? 1 : state_.size(0);
    return state_ * (static_cast<double>(channels) / static_cast<double>(count_));
  }

 private:
  void accumulate(const at::Tensor& sum) { state_ = state_.defined() ? state_ + sum : sum; }

  // [channels, all else]
  at::Tensor channels(const at::Tensor& values) const {
    const int64_t dim = channel_dim_ < 0 ? channel_dim_ + values.dim() : channel_dim_;
    if (dim < 0 || dim >= values.dim()) {
      throw Error(ErrorCode::kRunFailed, fmt::format("a tensor of {} dimensions has no channel {}",
                                                     values.dim(), channel_dim_));
    }
    return values.movedim(dim, 0).flatten(1);
  }

  Statistic statistic_;
  int64_t channel_dim_;
  at::Tensor state_;
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
    Observed& here = observers[value];
    bool is_new = true;
    for (const auto& [other, accumulator] : here) is_new = is_new && other != wish;
    if (is_new) here.emplace_back(wish, Accumulator(wish.statistic, wish.channel_dim));
  }
  return observers;
}

void observe(const Value& value, const at::Tensor& tensor, Observed& observed) {
  // Norm and mean of what is not finite are not finite either, so looking at the first will do.
  if (tensor.is_floating_point() && tensor.numel() > 0 &&
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
  int64_t runs = 0;
  if (batches) {
    batches([&](const std::vector<at::Tensor>& inputs) {
      interpreter.run(inputs, observer);
      ++runs;
    });
  }
  if (runs == 0) {
    throw Error(ErrorCode::kInvalidArgument, "there is no calibration data", "",
                "add a `calibration` entry to `data`");
  }
  Statistics statistics;
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
