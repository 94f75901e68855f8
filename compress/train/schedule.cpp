// The factors of the learning-rate schedules, in closed form.

#include "compress/train/schedule.h"

#include "compress/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace compress {
namespace {

// A run of optimizer steps; `step` is at most `total`, where the last step is `total - 1`.
struct Moment {
  double step, total, per_epoch;
};

// From `start` at share 0 to `end` at share 1.
double cosine_between(double start, double end, double share) {
  return end + (start - end) * (1 + std::cos(std::numbers::pi * share)) / 2;
}

// Whether `epochs` have passed. 1.1 epochs of 10 steps are 11.000000000000002 in floating point: a
// millionth of a step makes no difference.
bool passed(const Moment& now, double epochs) { return now.step + 1e-6 >= epochs * now.per_epoch; }

double own_factor(const ConstantSchedule&, const Moment&) { return 1; }

double own_factor(const StepSchedule& schedule, const Moment& now) {
  const double drops = std::floor(now.step / (static_cast<double>(schedule.every) * now.per_epoch));
  return std::pow(schedule.gamma, drops);
}

double own_factor(const MultiStepSchedule& schedule, const Moment& now) {
  const auto drops = std::count_if(schedule.at.begin(), schedule.at.end(),
                                   [&](double epochs) { return passed(now, epochs); });
  return std::pow(schedule.gamma, static_cast<double>(drops));
}

double own_factor(const CosineSchedule& schedule, const Moment& now) {
  return cosine_between(1, schedule.final, now.step / now.total);
}

double own_factor(const LinearSchedule& schedule, const Moment& now) {
  return 1 + (schedule.final - 1) * now.step / now.total;
}

// As in torch the top is reached one step early, at `rise * total - 1`, and the bottom at the last
// step.
double own_factor(const OneCycleSchedule& schedule, const Moment& now) {
  const double top = schedule.rise * now.total - 1, last = now.total - 1;
  const double step = std::min(now.step, last);
  const double start = 1 / schedule.start_divisor;
  if (step <= top) return top > 0 ? cosine_between(start, 1, step / top) : 1;
  return cosine_between(1, start / schedule.final_divisor, (step - top) / (last - top));
}

}  // namespace

void MultiStepSchedule::validate(Problems& problems) const {
  for (size_t i = 1; i < at.size(); ++i) {
    if (at[i] > at[i - 1]) continue;
    problems.add(fmt::format("/at/{}", i),
                 fmt::format("{} does not come after {}", at[i], at[i - 1]),
                 "the epochs must be in ascending order");
  }
}

Schedule::Schedule(const ScheduleOptions& options, int64_t total_steps, int64_t steps_per_epoch)
    : options_(options), total_steps_(total_steps), steps_per_epoch_(steps_per_epoch) {
  COMPRESS_CHECK(total_steps >= 1 && steps_per_epoch >= 1, "a run has steps");
  check_options(options);
}

double Schedule::factor(int64_t step) const {
  const Moment now{static_cast<double>(std::clamp<int64_t>(step, 0, total_steps_)),
                   static_cast<double>(total_steps_), static_cast<double>(steps_per_epoch_)};
  return std::visit(
      [&](const auto& schedule) {
        const double warmup = schedule.warmup_epochs * now.per_epoch;
        const double share = now.step + 1 < warmup ? (now.step + 1) / warmup : 1;
        return share * own_factor(schedule, now);
      },
      options_.value);
}

}  // namespace compress
