// Inputs of a part of a network, moved towards what the network's batch norms have seen in
// training.

#pragma once

#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace compress {

class SerialWorkers;

/// How inputs are corrected; the authors' program takes 500 steps at a rate of 0.001.
struct InputCorrection {
  int64_t steps = 0;   ///< of Adam on each mini-batch; 0: inputs stay
  double rate = 0.01;  ///< falls to a hundredth in two steps where the loss stays
  double pull = 50;    ///< factor of the squared distance to the inputs as they were
  int64_t batch_size = 32;
};

/// The batch norms of `part` whose statistics inputs can be moved towards: in eval mode, with
/// running statistics, over inputs [samples, channels, places...].
std::vector<const Node*> correctable_norms(const Model& part);

/// Moves the floating-point `inputs` of `part`, all samples, so that each sample's mean and
/// standard deviation over the places of a channel come near the running ones of the batch norms
/// `norms` of `part` (Liu et al., PD-Quant, CVPR 2023, equation 8). Others are returned as they
/// are. The result does not depend on the number of workers.
std::vector<at::Tensor> corrected_inputs(const Model& part, const std::vector<const Node*>& norms,
                                         std::vector<at::Tensor> inputs,
                                         const InputCorrection& settings, SerialWorkers& workers);

}  // namespace compress
