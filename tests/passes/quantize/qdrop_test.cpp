// Tests of passes/quantize/qdrop.

#include "tests/passes/quantize/calibrated.h"

#include <ATen/Parallel.h>

namespace compress::testing {
namespace {

TEST(QuantizeQdrop, LearnsCodesAndStepsTogether) {
  const at::Tensor x = smooth_images();
  const Model exact = residual_network();
  Model model = exact.clone();
  const RunResult result =
      run_passes("quantize.qdrop{bits=3,activations=4,ends=0,iterations=300,rate=0.02}", model,
                 calibrated_on(x));
  const auto& measures = result.steps.at(0).measures;
  EXPECT_LT(measures.at("unit_error"), 0.9 * measures.at("unit_error_nearest"));
  EXPECT_EQ(count_of(model, "aten::fake_quantize_per_tensor_affine"), 4);
  EXPECT_EQ(count_of(model, "aten::where.self"), 0) << "nothing drops out any more";
}

TEST(QuantizeQdrop, MovesTheStepsOfActivations) {
  Model model = residual_network();
  const RunResult result =
      run_passes("quantize.qdrop{bits=8,activations=2,ends=0,iterations=300,step_rate=0.01}", model,
                 calibrated_on(smooth_images()));
  const auto& measures = result.steps.at(0).measures;
  EXPECT_LT(measures.at("unit_error"), 0.95 * measures.at("unit_error_nearest"));
}

TEST(QuantizeQdrop, DropsByChanceThatDependsOnTheSeedOnly) {
  const at::Tensor x = smooth_images();
  const auto codes = [&](uint64_t seed, int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    Model model = residual_network();
    Recipe recipe = recipe_of("quantize.qdrop{bits=2,iterations=20,rate=0.1}");
    recipe.seed = seed;
    run_recipe(recipe, model, calibrated_on(x));
    at::set_num_threads(before);
    return weights(model)[1].effective().clone();
  };
  EXPECT_TRUE(at::equal(codes(1, 1), codes(1, 3)));
  EXPECT_FALSE(at::equal(codes(1, 2), codes(2, 2)));
}

TEST(QuantizeQdrop, RefusesAProbabilityAboveOne) {
  Model model = residual_network();
  EXPECT_THAT(refusal("quantize.qdrop{drop=1.5}", model), HasSubstr("1.5"));
}

}  // namespace
}  // namespace compress::testing
