// Optimizers against torch.optim, step by step, with every schedule and with clipping.

#include "compress/train/optimizer.h"
#include "compress/train/schedule.h"
#include "tests/train/golden_optimizers.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress {
namespace {

at::Tensor tensor_of(const Json& json) {
  if (!json[0].is_array()) return at::tensor(json.get<std::vector<double>>()).to(at::kFloat);
  std::vector<at::Tensor> rows;
  for (const Json& row : json) rows.push_back(tensor_of(row));
  return at::stack(rows);
}

// Parameters after `run`, against the golden ones, within 1e-6 of numbers of the order of 1:
// torch's kernels for one tensor and the fused ones round in another order.
void expect_parameters(const Optimizer& optimizer, const Json& expected) {
  for (const OptimizedParameter& parameter : optimizer.parameters()) {
    const at::Tensor is = parameter.tensor.detach().cpu().flatten();
    const auto should = expected[parameter.name].get<std::vector<double>>();
    ASSERT_EQ(is.numel(), static_cast<int64_t>(should.size()));
    for (int64_t i = 0; i < is.numel(); ++i) {
      const double number = should[static_cast<size_t>(i)];
      EXPECT_NEAR(is[i].item<double>(), number, 1e-6 * std::max(std::abs(number), 0.1))
          << parameter.name << " at " << i;
    }
  }
}

void check(const Json& golden, const Json& run, c10::Device device) {
  std::vector<OptimizedParameter> parameters;
  for (const auto& [name, values] : golden["initial"].items()) {
    parameters.push_back({name, tensor_of(values).to(device).set_requires_grad(true)});
  }
  Optimizer optimizer(testing::read_choice<OptimizerOptions>(run["optimizer"]), parameters);
  const Schedule schedule(testing::read_choice<ScheduleOptions>(run["schedule"]),
                          golden["steps"].get<int64_t>(), golden["steps_per_epoch"].get<int64_t>());
  for (size_t step = 0; step < golden["gradients"].size(); ++step) {
    SCOPED_TRACE(step);
    optimizer.zero_grad();
    for (OptimizedParameter& parameter : parameters) {
      parameter.tensor.mutable_grad() =
          tensor_of(golden["gradients"][step][parameter.name]).to(device);
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
    expect_parameters(optimizer, run["parameters"][step]);
  }
}

void check_all(c10::Device device) {
  const Json golden = testing::golden_optimizers();
  ASSERT_GE(golden["gradients"].size(), 20u);
  ASSERT_EQ(golden["runs"].size(), 35u);
  for (const Json& run : golden["runs"]) {
    SCOPED_TRACE(run["optimizer"].dump() + " " + run["schedule"].dump() + " " + run["clip"].dump());
    check(golden, run, device);
    if (::testing::Test::HasFailure()) return;  // the next steps only repeat it
  }
}

TEST(OptimizerGolden, TakesTheStepsOfTorchOptim) { check_all(at::kCPU); }

TEST(OptimizerGolden, TakesTheStepsOfTorchOptimOnCuda) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  check_all(at::kCUDA);
}

}  // namespace
}  // namespace compress
