// What the calibrated pruning passes share.

#include "passes/prune/prune_layer.h"

#include <fmt/format.h>

namespace compress {

int64_t input_channels(const Weight& weight) { return weight.sizes()[weight.input_dim()]; }

std::string unless_prunable(const Weight& weight, int64_t m) {
  if (m > 0 && input_channels(weight) < m) {
    return fmt::format("its {} input channels make no run of {}", input_channels(weight), m);
  }
  if (weight.is_quantized()) {
    return fmt::format("it is quantized ({}), prune before", weight.encoding());
  }
  return weight.stored() ? "" : "it is computed from other tensors";
}

void NOfMOptions::validate_n_of_m(Problems& problems) const {
  if ((n > 0) != (m > 0)) problems.add("n", "n and m go together", "say both, such as 2 and 4");
  if (n > m) problems.add("n", fmt::format("{} of {} cannot stay", n, m), "n is at most m");
}

void LayerPruner::apply(CalibratedLayer& layer, const PrunedColumns& found, double damping) {
  if (found.damping != damping) {
    context_.message(
        fmt::format("{}: damping raised to {}, the Gram matrix of its inputs is "
                    "singular with {}; more calibration data would help",
                    layer.weight.name(), found.damping, damping));
  }
  error_ += relative_output_error(layer.matrix, found.weight, layer.gram);
  ++fitted_;
  changed_ |= store_matrix(layer.weight, found.weight);
  mask(layer, found.keep);
}

void LayerPruner::mask(CalibratedLayer& layer, const at::Tensor& keep) {
  const int64_t masked = mask_matrix(layer.weight, keep);
  zeroed_ += masked;
  changed_ |= masked > 0;
}

Change LayerPruner::finish() {
  context_.count("weights_zeroed", zeroed_);
  if (fitted_ > 0) {
    context_.measure("mean_relative_output_error", error_ / static_cast<double>(fitted_));
  }
  return changed_ ? Change::kSome : Change::kNone;
}

}  // namespace compress
