// A weight under reconstruction: what may be moved to make its codes better.

#pragma once

#include "compress/encoding.h"
#include "compress/train/optimizer.h"
#include "passes/quantize/uniform_grid.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace compress {

/// The weight that is rounded.
struct RoundedWeight {
  std::string name;
  at::Tensor elements;  ///< floating, as the layer sees it; masked elements are 0
  at::Tensor mask;      ///< bool, undefined if there is none: false stays 0 whatever happens
  int64_t channel_dim = 0;
  UniformGrid grid;

  /// Of codes [rows, columns].
  QuantizedTensor quantized(const at::Tensor& codes) const;
  QuantizedTensor nearest() const;
};

/// Variables and the weight that follows from them.
class WeightVariable {
 public:
  virtual ~WeightVariable() = default;
  /// What the layer computes with, with gradients to `parameters()`.
  virtual at::Tensor effective() const = 0;
  virtual std::vector<OptimizedParameter> parameters() const = 0;
  /// A term that pushes the variables to codes; undefined if there is none.
  virtual at::Tensor penalty(double beta) const = 0;
  /// The codes that were found.
  virtual QuantizedTensor result() const = 0;
  /// How many elements are not yet decided by more than 0.01, of `result().sizes`.
  virtual int64_t undecided() const = 0;
};

/// Each element goes up or down (passes/quantize/adaptive_rounding.h). The scale stays.
std::unique_ptr<WeightVariable> rounding_variable(const RoundedWeight& weight);

/// Elements and scales move freely, in units of the first scale of their row; gradients pass
/// straight through the rounding and stop where it clips (Hubara et al., "Accurate Post Training
/// Quantization With Small Calibration Sets", ICML 2021, equation 2). An
/// element may end several codes away. `scale_rate` is the scales' learning rate relative to the
/// elements'.
std::unique_ptr<WeightVariable> free_variable(const RoundedWeight& weight, double scale_rate);

}  // namespace compress
