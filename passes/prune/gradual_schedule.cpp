// The cubic schedule of gradual pruning.

#include "passes/prune/gradual_schedule.h"

#include <algorithm>
#include <cmath>

namespace compress {

double gradual_sparsity(double initial, double final, double progress, double power) {
  return final + (initial - final) * std::pow(1 - std::clamp(progress, 0.0, 1.0), power);
}

}  // namespace compress
