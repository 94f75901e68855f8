// A build without oneDNN says how to get the engine.

#include "compress/engine/plan.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;

TEST(EngineAbsent, SaysWhatToInstall) {
  const Model model = parse_filled("input x : f32[1,2]\ny = aten::relu(x)\nreturn y = y");
  EXPECT_FALSE(has_engine());
  EXPECT_THAT(message_of([&] {
                plan(model, {at::zeros({1, 2})});
              }),
              HasSubstr("pip install onednn-devel-cpu-gomp"));
}

}  // namespace
}  // namespace compress::testing
