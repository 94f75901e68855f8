// Optimizers against torch.optim, step by step, with every schedule and with clipping.

#include "compress/train/optimizer.h"
#include "compress/train/schedule.h"
#include "tests/train/golden_optimizers.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>

namespace compress {
namespace {

at::Tensor tensor_of(const Json& json, at::TensorOptions options) {
  if (!json[0].is_array())
    return at::tensor(json.get<std::vector<double>>(), at::kDouble).to(options);
  std::vector<at::Tensor> rows;
  for (const Json& row : json) rows.push_back(tensor_of(row, options));
  return at::stack(rows);
}

// Parameters are of the order of 1, so that is what a relative error is relative to: a small one
// may be the difference of two steps.
void expect_parameters(const Optimizer& optimizer, const Json& expected, double error) {
  for (const OptimizedParameter& parameter : optimizer.parameters()) {
    const at::Tensor is = parameter.tensor.detach().cpu().flatten();
    const auto should = expected[parameter.name].get<std::vector<double>>();
    ASSERT_EQ(is.numel(), static_cast<int64_t>(should.size()));
    for (int64_t i = 0; i < is.numel(); ++i) {
      const double number = should[static_cast<size_t>(i)];
      EXPECT_NEAR(is[i].item<double>(), number, error * std::max(std::abs(number), 1.0))
          << parameter.name << " at " << i;
    }
  }
}

// In f32 every step is compared, within 1e-6: torch's loops and the fused kernels round in another
// order. In f64 the end is, within 1e-13: there no wrong constant can hide behind rounding.
void check(const Json& golden, const Json& run, at::TensorOptions options) {
  const bool is_float = options.dtype() == at::kFloat;
  std::vector<OptimizedParameter> parameters;
  for (const auto& [name, values] : golden["initial"].items()) {
    parameters.push_back({name, tensor_of(values, options).set_requires_grad(true)});
  }
  Optimizer optimizer(testing::read_choice<OptimizerOptions>(run["optimizer"]), parameters);
  const Schedule schedule(testing::read_choice<ScheduleOptions>(run["schedule"]),
                          golden["steps"].get<int64_t>(), golden["steps_per_epoch"].get<int64_t>());
  for (size_t step = 0; step < golden["gradients"].size(); ++step) {
    SCOPED_TRACE(step);
    optimizer.zero_grad();
    for (OptimizedParameter& parameter : parameters) {
      parameter.tensor.mutable_grad() =
          tensor_of(golden["gradients"][step][parameter.name], options);
    }
    if (!run["clip"].is_null()) {
      const auto norm = run["norms"][step].get<double>();
      EXPECT_NEAR(optimizer.gradient_norm(), norm, 1e-6 * norm);
      EXPECT_NEAR(optimizer.clip(run["clip"].get<double>()), norm, 1e-6 * norm);
    }
    const double factor = schedule.factor(static_cast<int64_t>(step));
    const auto rate = run["rates"][step].get<double>();
    EXPECT_NEAR(optimizer.learning_rate() * factor, rate, 1e-9 * rate + 1e-15);
    optimizer.step(factor);
    if (is_float) expect_parameters(optimizer, run["parameters"][step], 1e-6);
  }
  if (!is_float) expect_parameters(optimizer, run["final"], 1e-13);
}

void check_all(at::TensorOptions options) {
  const Json golden = testing::golden_optimizers();
  ASSERT_GE(golden["gradients"].size(), 20u);
  ASSERT_EQ(golden["runs"].size(), 35u);
  for (const Json& run : golden["runs"]) {
    SCOPED_TRACE(run["optimizer"].dump() + " " + run["schedule"].dump() + " " + run["clip"].dump());
    check(golden, run, options);
    if (::testing::Test::HasFailure()) return;  // the next steps only repeat it
  }
}

TEST(OptimizerGolden, TakesTheStepsOfTorchOptim) {
  check_all(at::kFloat);
  check_all(at::kDouble);
}

TEST(OptimizerGolden, TakesTheStepsOfTorchOptimOnCuda) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  check_all(at::device(at::kCUDA).dtype(at::kFloat));
  check_all(at::device(at::kCUDA).dtype(at::kDouble));
}

}  // namespace
}  // namespace compress
