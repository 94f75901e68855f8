// Layer- and block-wise reconstruction: one loop behind AdaRound, AdaQuant, BRECQ, QDrop, PD-Quant.
//
// The network is gone through unit by unit. Each unit is to give, on the inputs that the network
// quantized so far gives it, the outputs that the full-precision network has there; what may be
// moved for that, and what counts as near, is a matter of settings.
//
// Memory: tensors of all samples for the unit at work (inputs from the network quantized so far,
// target, and with `drop` inputs from the full-precision network), and what is alive at this place
// in both networks; for 1024 images at ResNet-20's widest place 64 MB each, 256 to 320 MB together.

#pragma once

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/quantize/adaptive_rounding.h"
#include "passes/quantize/grid.h"
#include "passes/quantize/input_correction.h"
#include "passes/quantize/reconstruction_units.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace compress {

/// Where the scales of weights come from before anything is optimised.
enum class WeightRange {
  kMinmax,  ///< the least and the greatest weight
  kMse,     ///< of 80 ranges shrunk in steps of 1 %, the one of least squared error
  kLp,      ///< of 100 such ranges, the one of least sum of |error|^2.4
};
inline std::vector<std::string_view> option_names(WeightRange) { return {"minmax", "mse", "lp"}; }

/// What the differences of a unit's outputs count.
enum class OutputLoss {
  kSquared,  ///< all the same
  kFisher,   ///< each by the squared slope of the network's predictions there
};
inline std::vector<std::string_view> option_names(OutputLoss) { return {"squared", "fisher"}; }

struct Reconstruction {
  UnitKind units = UnitKind::kLayer;

  int bits = 4;                           ///< of weights
  int activations = 0;                    ///< bits of the layers' inputs; 0: they stay
  int ends = 0;                           ///< bits of both in the first and last layer; 0: as above
  Grid grid = Grid::kSymmetric;           ///< of weights
  WeightRange range = WeightRange::kMse;  ///< of weights

  int64_t iterations = 500;
  int64_t batch_size = 32;
  double rate = 0.01;         ///< of the weights' variables
  bool free_weights = false;  ///< weights move freely; else each goes up or down
  double scale_rate = 0;      ///< of their scales, relative to `rate`; free weights only
  double bias_rate = 0;       ///< of the layers' biases; 0: they stay
  double penalty = 0.01;      ///< factor of the rounding penalty
  PenaltySchedule schedule;

  double step_rate = 1e-3;      ///< of the activations' steps, falls to 0 by a half cosine
  int64_t step_iterations = 0;  ///< steps are learned after the weights; 0: together with them
  double drop = 0;  ///< share of elements that stay as in full precision while weights are learned

  OutputLoss loss = OutputLoss::kSquared;
  double prediction = 0;   ///< factor of the difference of predictions
  double temperature = 4;  ///< of the predictions
  InputCorrection correction;

  bool predicts() const { return prediction > 0 || loss == OutputLoss::kFisher; }
};

/// Rounds `selected`, in the order of the graph, on the context's calibration data: weights become
/// codes, inputs of the layers go through aten::fake_quantize_per_tensor_affine. A unit whose
/// outputs come out worse than with the nearest codes keeps those. Weights that are no
/// convolution's or linear layer's, or are shared, coded or not f32, are left alone with a message.
/// The result does not depend on the number of threads. Throws Error(kUnsupported) if activations
/// do not count samples in their first dimension, or where `predicts()` if the model's first output
/// is not one row of logits a sample or depends on more than the unit.
Change reconstruct(Model& model, std::vector<Weight> selected, const Reconstruction& settings,
                   PassContext& context);

}  // namespace compress
