// Tests of passes/quantize/input_correction.

#include "passes/quantize/input_correction.h"

#include "passes/quantize/serial_workers.h"
#include "tests/support/pass_test.h"

#include <ATen/Parallel.h>

namespace compress::testing {
namespace {

Model norm_alone(const std::string& places) {
  return parse_filled(R"(
input x : f32[batch,1,)" +
                      places + R"(]
buffer mean : f32[1] = [3]
buffer variance : f32[1] = [4]
y = aten::batch_norm(x, none, none, mean, variance, false, 0.1, 1e-5, true) : f32[batch,1,)" +
                      places + R"(] @ bn
return y = y
)");
}

at::Tensor corrected(const Model& part, const at::Tensor& x, const InputCorrection& settings) {
  SerialWorkers workers;
  return corrected_inputs(part, correctable_norms(part), {x}, settings, workers).at(0);
}

// Two places have one mean and one deviation, so the statistics say what they must become.
TEST(InputCorrection, GivesASampleTheStatisticsOfTheNorm) {
  const Model part = norm_alone("2");
  const at::Tensor x = at::tensor({0.F, 1.F, 9.F, 7.F}).view({2, 1, 2});
  const at::Tensor moved = corrected(part, x, {.steps = 3000, .rate = 0.02, .pull = 0});
  const float off = std::sqrt(2.F);  // the deviation of 3 - off and 3 + off is 2
  const at::Tensor wanted = at::tensor({3 - off, 3 + off, 3 + off, 3 - off}).view({2, 1, 2});
  EXPECT_LT((moved - wanted).abs().max().item<float>(), 1e-2) << moved;
}

// Of (x - 3)^2 + 4 (x - x0)^2, the minimum is at (3 + 4 x0) / 5.
TEST(InputCorrection, StaysNearTheInput) {
  const Model part = norm_alone("1");
  const at::Tensor x = at::tensor({0.F, 8.F}).view({2, 1, 1});
  const at::Tensor moved = corrected(part, x, {.steps = 3000, .rate = 0.02, .pull = 4});
  EXPECT_LT((moved.flatten() - at::tensor({0.6F, 7.F})).abs().max().item<float>(), 1e-2) << moved;
}

TEST(InputCorrection, DoesNotDependOnThreads) {
  const Model part = norm_alone("5");
  at::manual_seed(1);
  const at::Tensor x = at::randn({10, 1, 5});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = corrected(part, x, {.steps = 5, .batch_size = 3});
  at::set_num_threads(3);
  const at::Tensor three = corrected(part, x, {.steps = 5, .batch_size = 3});
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
  EXPECT_FALSE(at::equal(one, x));
}

TEST(InputCorrection, LeavesOutNormsWithoutPlacesOrStatistics) {
  EXPECT_EQ(correctable_norms(norm_alone("2")).size(), 1u);
  const Model flat = parse_filled(R"(
input x : f32[batch,2]
buffer mean : f32[2]
buffer variance : f32[2] = [1, 1]
y = aten::batch_norm(x, none, none, mean, variance, false, 0.1, 1e-5, true) : f32[batch,2] @ bn
return y = y
)");
  EXPECT_TRUE(correctable_norms(flat).empty());
  const Model training = parse_filled(R"(
input x : f32[batch,2,3]
y = aten::batch_norm(x, none, none, none, none, true, 0.1, 1e-5, true) : f32[batch,2,3] @ bn
return y = y
)");
  EXPECT_TRUE(correctable_norms(training).empty());
  const at::Tensor x = at::randn({4, 2});
  EXPECT_TRUE(at::equal(corrected(flat, x, {.steps = 5}), x));
}

}  // namespace
}  // namespace compress::testing
