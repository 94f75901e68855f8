// What the reconstruction passes have in common, as options.

#pragma once

#include "compress/options.h"
#include "compress/selector.h"
#include "passes/quantize/reconstruct.h"

#include <cstdint>

namespace compress {

/// Base of the options structs of the passes; each adds what is its own.
struct ReconstructOptions {
  int bits = 4;
  Grid grid = Grid::kSymmetric;
  WeightRange range = WeightRange::kMse;
  int activations = 0;
  int ends = 8;
  int64_t iterations = 500;
  int64_t batch_size = 32;
  double rate = 0.01;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit_common(Visitor& field) {
    field("bits", bits, "Bits of a weight's code; each output channel has its scale.").range(2, 8);
    field("grid", grid, "Codes around zero, or with a zero point where the range is lopsided.");
    field("range", range,
          "How the range that the codes of a channel cover is chosen; `lp` minimises the error to "
          "the power of 2.4.");
    field("activations", activations,
          "Bits of the inputs of the same layers, one range a tensor, learned; 0: they stay.")
        .range(0, 8);
    field("ends", ends,
          "Bits of weights and inputs of the model's first and last layer; 0: as all others.")
        .range(0, 8);
    field("iterations", iterations, "Steps on each unit; the papers take 10000 to 20000.")
        .range(1, 1000000);
    field("batch_size", batch_size, "Samples of a step.").range(1, 1 << 16);
    field("rate", rate, "Learning rate of what decides the codes (Adam).").at_least(0);
    field("where", where, "The weights to quantize.");
  }

  void validate_common(Problems& problems) const {
    if (activations == 1) problems.add("activations", "one bit is too few", "use 2 to 8, or 0");
    if (ends == 1) problems.add("ends", "one bit is too few", "use 2 to 8, or 0");
    if (rate == 0) problems.add("rate", "at a rate of 0 nothing is learned", "leave it out");
  }

  /// The settings that follow from these.
  Reconstruction common() const {
    Reconstruction settings;
    settings.bits = bits;
    settings.grid = grid;
    settings.range = range;
    settings.activations = activations;
    settings.ends = ends;
    settings.iterations = iterations;
    settings.batch_size = batch_size;
    settings.rate = rate;
    return settings;
  }
};

/// Base of those that choose between up and down.
struct AdaptiveRoundingOptions : ReconstructOptions {
  double penalty = 0.01;
  double warmup = 0.2;
  double step_rate = 1e-3;

  AdaptiveRoundingOptions() {
    rate = 0.03;
  }  // thirty times the papers' rate for a thirtieth of their steps

  template <class Visitor>
  void visit_rounding(Visitor& field) {
    visit_common(field);
    field("penalty", penalty, "Factor of the term that drives roundings to either side.")
        .at_least(0);
    field("warmup", warmup, "Share of the iterations before that term sets in.").range(0.0, 1.0);
    field("step_rate", step_rate, "Learning rate of the steps of activations (Adam).").at_least(0);
  }

  Reconstruction rounding() const {
    Reconstruction settings = common();
    settings.penalty = penalty;
    settings.schedule.warmup = warmup;
    settings.step_rate = step_rate;
    return settings;
  }
};

}  // namespace compress
