// Adam on the inputs themselves, a mini-batch at a time.

#include "passes/quantize/input_correction.h"

#include "compress/graph/extract.h"
#include "compress/train/optimizer.h"
#include "passes/batch_norm_node.h"
#include "passes/quantize/serial_workers.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <limits>
#include <string>

namespace compress {
namespace {

constexpr double kEps = 1e-6;          // under the root of a standard deviation
constexpr double kPlateau = 1e-4;      // a loss that falls by a smaller share than this stays
constexpr double kFall = 0.1;          // of the rate, then
constexpr double kLeastFactor = 0.01;  // that the rate falls to
constexpr int64_t kPatience = 5;       // the loss may stay for a fifth of the steps

struct ChannelStatistics {
  at::Tensor mean, deviation;  // [channels]
};

// The rate's factor: falls where the loss has stayed for long.
class Plateau {
 public:
  explicit Plateau(int64_t patience) : patience_(patience) {}

  double next(double loss) {
    if (loss < best_ * (1 - kPlateau)) {
      best_ = loss;
      stayed_ = 0;
    } else if (++stayed_ > patience_) {
      factor_ = std::max(kLeastFactor, factor_ * kFall);
      stayed_ = 0;
    }
    return factor_;
  }

 private:
  int64_t patience_, stayed_ = 0;
  double best_ = std::numeric_limits<double>::infinity(), factor_ = 1;
};

// Differences of each sample's statistics to those of the norms, a sample's share.
at::Tensor distance(const std::vector<at::Tensor>& seen,
                    const std::vector<ChannelStatistics>& wanted) {
  at::Tensor sum = at::zeros({});
  for (size_t i = 0; i < seen.size(); ++i) {
    const at::Tensor places = seen[i].flatten(2);
    sum = sum + (places.mean(-1) - wanted[i].mean).square().sum();
    if (places.size(-1) < 2) continue;  // a single place has no deviation
    const at::Tensor deviation = (places.var(-1, /*unbiased=*/true) + kEps).sqrt();
    sum = sum + (deviation - wanted[i].deviation).square().sum();
  }
  return sum / seen.front().size(0);
}

// The mean over samples and places of the squared distance summed over channels.
at::Tensor distance(const at::Tensor& moved, const at::Tensor& original) {
  const double channels = moved.dim() > 1 ? static_cast<double>(moved.size(1)) : 1;
  return (moved - original).square().mean() * channels;
}

std::vector<at::Tensor> corrected_batch(const Model& part,
                                        const std::vector<ChannelStatistics>& wanted,
                                        const std::vector<at::Tensor>& inputs,
                                        const InputCorrection& settings) {
  std::vector<at::Tensor> moved, leaves;
  std::vector<OptimizedParameter> parameters;
  for (size_t i = 0; i < inputs.size(); ++i) {
    moved.push_back(inputs[i]);
    if (!inputs[i].is_floating_point()) continue;
    moved.back() = inputs[i].clone().set_requires_grad(true);
    leaves.push_back(moved.back());
    parameters.push_back({"input" + std::to_string(i), moved.back()});
  }
  AdamOptions adam;
  adam.lr = settings.rate;
  Optimizer optimizer(adam, parameters);
  Plateau plateau(settings.steps / kPatience);
  for (int64_t step = 0; step < settings.steps; ++step) {
    at::Tensor loss = distance(part.forward(moved), wanted);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (moved[i].requires_grad()) loss = loss + settings.pull * distance(moved[i], inputs[i]);
    }
    const std::vector<at::Tensor> slopes =
        torch::autograd::grad({loss}, leaves, {}, std::nullopt, false, /*allow_unused=*/true);
    for (size_t i = 0; i < leaves.size(); ++i) leaves[i].mutable_grad() = slopes[i];
    optimizer.step(plateau.next(loss.item<double>()));
    optimizer.zero_grad();
  }
  for (at::Tensor& input : moved) input = input.detach();
  return moved;
}

}  // namespace

std::vector<const Node*> correctable_norms(const Model& part) {
  std::vector<const Node*> found;
  for (const Node& node : part.graph().nodes()) {
    if (!is_batch_norm(node) || is_training(node)) continue;
    const Value* input = node.arguments()[0].value();
    const auto& sizes = input->type.sizes;
    if (!sizes || sizes->size() < 3) continue;
    if (!norm_tensor(part, node, "running_mean").defined()) continue;
    found.push_back(&node);
  }
  return found;
}

std::vector<at::Tensor> corrected_inputs(const Model& part, const std::vector<const Node*>& norms,
                                         std::vector<at::Tensor> inputs,
                                         const InputCorrection& settings, SerialWorkers& workers) {
  if (norms.empty() || settings.steps == 0) return inputs;
  std::vector<ChannelStatistics> wanted;
  std::vector<const Value*> given, seen;
  for (const Node* norm : norms) {
    const BatchNorm statistics = read_batch_norm(part, *norm);
    wanted.push_back({statistics.mean, (statistics.variance + kEps).sqrt()});
    seen.push_back(norm->arguments()[0].value());
  }
  for (const Value* input : part.graph().inputs()) given.push_back(input);
  const Model towards = extract(part, given, seen);
  std::vector<Model> models;
  for (size_t i = 0; i < workers.size(); ++i) models.push_back(towards.clone(false));

  const int64_t samples = inputs.front().size(0);
  const int64_t chunks = (samples + settings.batch_size - 1) / settings.batch_size;
  std::vector<std::vector<at::Tensor>> moved(chunks);
  workers.run(chunks, [&](size_t worker, int64_t chunk) {
    std::vector<at::Tensor> rows;
    for (const at::Tensor& input : inputs) {
      rows.push_back(
          input.slice(0, chunk * settings.batch_size, (chunk + 1) * settings.batch_size));
    }
    moved[chunk] = corrected_batch(models[worker], wanted, rows, settings);
  });
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::vector<at::Tensor> parts;
    for (const std::vector<at::Tensor>& batch : moved) parts.push_back(batch[i]);
    inputs[i] = at::cat(parts);
  }
  return inputs;
}

}  // namespace compress
