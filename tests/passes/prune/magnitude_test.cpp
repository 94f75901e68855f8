// Tests of passes/prune/magnitude.

#include "tests/support/pass_test.h"

namespace compress::testing {
namespace {

TEST(PruneMagnitude, ZeroesTheSmallestHalfOfEachTensor) {
  Model model = parse_model("fc.weight : f32[2,2] = [[1, -4], [3, -2]]");
  EXPECT_EQ(run_pass("prune.magnitude{sparsity=0.5}", model), Change::kSome);
  EXPECT_EQ(effective_weight(model, "fc.weight"), "[[0, -4], [3, 0]]");
}

const char* const kTwo =
    "a.weight : f32[2,2] = [[1, 2], [3, 4]]\nb.weight : f32[2,2] = [[5, 6], [7, 8]]";

TEST(PruneMagnitude, SharesOneThresholdInTheModel) {
  Model model = parse_model(kTwo);
  run_pass("prune.magnitude{sparsity=0.625,scope=model}", model);
  EXPECT_EQ(effective_weight(model, "a.weight"), "[[0, 0], [0, 0]]");
  EXPECT_EQ(effective_weight(model, "b.weight"), "[[0, 6], [7, 8]]");
}

TEST(PruneMagnitude, PrunesOnlyWhatIsSelected) {
  Model model = parse_model(kTwo);
  run_pass("prune.magnitude{sparsity=0.5,where=b.*}", model);
  EXPECT_EQ(effective_weight(model, "a.weight"), "[[1, 2], [3, 4]]");
  EXPECT_EQ(effective_weight(model, "b.weight"), "[[0, 0], [7, 8]]");
}

TEST(PruneMagnitude, KeepsWhatIsZeroedZero) {
  Model model = parse_model(kTwo);
  run_pass("prune.magnitude{sparsity=0.75,where=a.*}", model);
  run_pass("prune.magnitude{sparsity=0.25}", model);
  EXPECT_EQ(effective_weight(model, "a.weight"), "[[0, 0], [0, 4]]");
  EXPECT_EQ(effective_weight(model, "b.weight"), "[[0, 6], [7, 8]]");
}

TEST(PruneMagnitude, CountsWhatItZeroed) {
  Model model = parse_model(kTwo);
  const RunResult result = run_passes("prune.magnitude{sparsity=0.5}", model);
  EXPECT_EQ(result.steps.at(0).counts.at("weights_zeroed"), 4);
}

TEST(PruneMagnitude, ReportsNoChangeWhenNothingIsToBeZeroed) {
  Model model = parse_model(kTwo);
  EXPECT_EQ(run_pass("prune.magnitude{sparsity=0}", model), Change::kNone);
}

TEST(PruneMagnitude, RefusesASparsityAboveOne) {
  Model model = parse_model(kTwo);
  EXPECT_THAT(refusal("prune.magnitude{sparsity=1.5}", model), HasSubstr("1.5"));
}

}  // namespace
}  // namespace compress::testing
