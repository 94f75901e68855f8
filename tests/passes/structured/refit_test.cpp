// Tests of passes/structured/refit.

#include "passes/structured/refit.h"

#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

InputMoments moments_of(const at::Tensor& now, const at::Tensor& before) {
  const auto rows = static_cast<double>(now.size(0));
  return {now.t().matmul(now) / rows, now.t().matmul(before) / rows, now.mean(0), before.mean(0)};
}

TEST(Refit, IsLeastSquaresWithAnIntercept) {
  at::manual_seed(1);
  const at::Tensor before = at::randn({300, 6}, at::kDouble) + 1;
  const at::Tensor now = before.narrow(1, 0, 4) + 0.3 * before.narrow(1, 2, 4) +
                         0.1 * at::randn({300, 4}, at::kDouble);
  const at::Tensor target = at::randn({5, 6}, at::kDouble), start = target.narrow(1, 0, 4);
  const at::Tensor wanted = before.matmul(target.t());
  for (const bool centered : {false, true}) {
    at::Tensor x = now;
    if (centered) x = at::cat({now, at::ones({300, 1}, at::kDouble)}, 1);
    const at::Tensor expected = std::get<0>(at::linalg_lstsq(x, wanted)).narrow(0, 0, 4).t();
    const at::Tensor found = refitted(moments_of(now, before), target, start, 0, centered);
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-8);
  }
  const at::Tensor held = refitted(moments_of(now, before), target, start, 1e9, true);
  EXPECT_LT((held - start).abs().max().item<double>(), 1e-6) << "a large ridge holds the weights";
}

TEST(Refit, MergesIntoTheChannelThatIsMostAlike) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({100, 4}, at::kDouble);
  at::Tensor before = x.clone();
  before.select(1, 3).copy_(-2 * x.select(1, 1));  // channel 3 is channel 1, times -2
  const at::Tensor now = before.narrow(1, 0, 3);
  const at::Tensor target = at::randn({2, 4}, at::kDouble);
  at::Tensor expected = target.narrow(1, 0, 3).clone();
  expected.select(1, 1).sub_(2 * target.select(1, 3));
  for (const bool centered : {false, true}) {
    const at::Tensor found =
        merged(moments_of(now, before), target, target.narrow(1, 0, 3), {0, 1, 2}, 1, centered);
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-8);
  }
}

}  // namespace
}  // namespace compress::testing
