// Measured latency of models on this machine.

#pragma once

#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace compress {

/// Times of single runs, in milliseconds.
struct Latency {
  double median_ms = 0;
  double low_ms = 0;   ///< 10th percentile
  double high_ms = 0;  ///< 90th percentile
  int64_t runs = 0;
};

struct LatencyOptions {
  int64_t batch = 1;
  double seconds = 1.0;  ///< spent on each model, after a warm-up of a tenth of it
  int64_t least_runs = 5;
  /// A turn repeats its run for so long, so that a fast one is not timed with caches that a slow
  /// one has filled; 0: one run a turn.
  double turn_ms = 5;
};

/// Times `forward` without gradients of several models in turns (A B A B ...), so that a change of
/// the machine's speed meets all alike. Inputs are `example_inputs`, on the model's device. The
/// number of threads is LibTorch's of the caller. Throws what a run throws.
std::vector<Latency> measure_latency(const std::vector<const Model*>& models,
                                     const LatencyOptions& options = {});

/// The same for any callables, for comparisons with other runtimes.
std::vector<Latency> time_in_turns(const std::vector<std::function<void()>>& runs,
                                   const LatencyOptions& options = {});

}  // namespace compress
