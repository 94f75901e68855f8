// Learning-rate schedules: the factor on the learning rate at each optimizer step.

#pragma once

#include "compress/options_nested.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace compress {

/// The same factor from the first step to the last.
struct ConstantSchedule {
  static constexpr std::string_view kName = "constant";
  double warmup_epochs = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("warmup_epochs", warmup_epochs, "Epochs in which the rate grows linearly from 0.")
        .at_least(0);
  }
};

/// Times `gamma` after every `every` epochs (StepLR).
struct StepSchedule {
  static constexpr std::string_view kName = "step";
  int64_t every = 30;
  double gamma = 0.1;
  double warmup_epochs = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("every", every, "Epochs from a drop to the next.").at_least(1);
    field("gamma", gamma, "Factor of a drop.").range(0.0, 1.0);
    field("warmup_epochs", warmup_epochs, "Epochs in which the rate grows linearly from 0.")
        .at_least(0);
  }
};

/// Times `gamma` at each of the given epochs (MultiStepLR).
struct MultiStepSchedule {
  static constexpr std::string_view kName = "multi_step";
  std::vector<double> at = {100, 150};
  double gamma = 0.1;
  double warmup_epochs = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("at", at, "Epochs of the drops, in ascending order; may be fractions.").at_least(0);
    field("gamma", gamma, "Factor of a drop.").range(0.0, 1.0);
    field("warmup_epochs", warmup_epochs, "Epochs in which the rate grows linearly from 0.")
        .at_least(0);
  }
  void validate(Problems& problems) const;
};

/// Half a cosine from 1 to `final` (Loshchilov & Hutter, "SGDR", ICLR 2017, eq. 5, no restarts).
struct CosineSchedule {
  static constexpr std::string_view kName = "cosine";
  double final = 0;
  double warmup_epochs = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("final", final, "Factor after the last step.").range(0.0, 1.0);
    field("warmup_epochs", warmup_epochs, "Epochs in which the rate grows linearly from 0.")
        .at_least(0);
  }
};

/// Up and down once (Smith & Topin, "Super-Convergence", 2018; torch's OneCycleLR with cosine
/// annealing): from 1/`start_divisor` to 1 in the first `rise` of the steps, then down to
/// 1/(`start_divisor` * `final_divisor`).
struct OneCycleSchedule {
  static constexpr std::string_view kName = "one_cycle";
  double rise = 0.3;
  double start_divisor = 25;
  double final_divisor = 1e4;
  double warmup_epochs = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("rise", rise, "Share of the steps in which the rate grows.").range(0.0, 1.0);
    field("start_divisor", start_divisor, "The rate begins at its maximum divided by this.")
        .at_least(1);
    field("final_divisor", final_divisor, "It ends at its beginning divided by this.").at_least(1);
    field("warmup_epochs", warmup_epochs, "Epochs in which the rate grows linearly from 0.")
        .at_least(0);
  }
};

/// A straight line from 1 to `final`.
struct LinearSchedule {
  static constexpr std::string_view kName = "linear";
  double final = 0;
  double warmup_epochs = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("final", final, "Factor after the last step.").range(0.0, 1.0);
    field("warmup_epochs", warmup_epochs, "Epochs in which the rate grows linearly from 0.")
        .at_least(0);
  }
};

using ScheduleOptions = OneOf<ConstantSchedule, StepSchedule, MultiStepSchedule, CosineSchedule,
                              OneCycleSchedule, LinearSchedule>;

/// A schedule over a run of known length.
class Schedule {
 public:
  /// `total_steps` and `steps_per_epoch` count optimizer steps, both at least 1. Throws
  /// Error(kInvalidArgument) for options out of range.
  Schedule(const ScheduleOptions& options, int64_t total_steps, int64_t steps_per_epoch);

  /// The factor for optimizer step `step` (from 0), as torch's schedulers give it when they are
  /// stepped after every optimizer step: StepLR(every * steps_per_epoch), MultiStepLR(at *
  /// steps_per_epoch), CosineAnnealingLR(T_max = total_steps), LinearLR(1, final, total_steps),
  /// OneCycleLR(total_steps). After the last step the factor stays.
  ///
  /// During the warm-up of W = warmup_epochs * steps_per_epoch steps it is the schedule's own
  /// factor times (step + 1) / W; the schedule itself counts from the first step, so that epochs of
  /// drops are those of the run.
  double factor(int64_t step) const;

 private:
  ScheduleOptions options_;
  int64_t total_steps_, steps_per_epoch_;
};

}  // namespace compress
