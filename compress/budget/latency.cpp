// Measured latency of models on this machine.

#include "compress/budget/latency.h"

#include "compress/error.h"
#include "compress/graph/shapes.h"

#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>

namespace compress {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

Latency summarise(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at_share = [&](double share) {
    return times[static_cast<size_t>(share * static_cast<double>(times.size() - 1) + 0.5)];
  };
  return {at_share(0.5), at_share(0.1), at_share(0.9), static_cast<int64_t>(times.size())};
}

}  // namespace

std::vector<Latency> time_in_turns(const std::vector<std::function<void()>>& runs,
                                   const LatencyOptions& options) {
  const double budget_ms = options.seconds * 1000.0 * static_cast<double>(runs.size());
  for (const double share : {0.1, 1.0}) {
    std::vector<std::vector<double>> times(runs.size());
    const auto too_few = [&] {
      return std::any_of(times.begin(), times.end(), [&](const std::vector<double>& each) {
        return static_cast<int64_t>(each.size()) < options.least_runs;
      });
    };
    const Clock::time_point start = Clock::now();
    do {
      for (size_t i = 0; i < runs.size(); ++i) {
        const Clock::time_point turn = Clock::now();
        do {
          const Clock::time_point before = Clock::now();
          runs[i]();
          times[i].push_back(milliseconds_since(before));
        } while (milliseconds_since(turn) < options.turn_ms);
      }
    } while (milliseconds_since(start) < share * budget_ms || (share == 1.0 && too_few()));
    if (share < 1.0) continue;
    std::vector<Latency> latencies;
    for (std::vector<double>& each : times) latencies.push_back(summarise(std::move(each)));
    return latencies;
  }
  return {};
}

std::vector<Latency> measure_latency(const std::vector<const Model*>& models,
                                     const LatencyOptions& options) {
  const at::NoGradGuard no_grad;
  std::vector<std::function<void()>> runs;
  for (const Model* model : models) {
    if (model->is_tensor_set()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the model is a bare set of tensors and cannot be run", {},
                  "give its architecture with --arch (see: lathe models)");
    }
    const c10::Device device = model->device();
    std::vector<at::Tensor> inputs = example_inputs(*model, options.batch);
    for (at::Tensor& input : inputs) input = input.to(device);
    runs.emplace_back([model, device, inputs = std::move(inputs)] {
      model->forward(inputs);
      // Kernels of an accelerator run on after the call; their end is what counts.
      if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(0);
    });
  }
  return time_in_turns(runs, options);
}

}  // namespace compress
