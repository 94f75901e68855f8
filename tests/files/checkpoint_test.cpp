// Checkpoints hold a model exactly as it is in memory.

#include "compress/files.h"
#include "compress/graph/digest.h"
#include "compress/graph/text.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <fstream>
#include <iterator>

namespace compress::testing {
namespace {

constexpr const char* kNetwork = R"(
input x : f32[batch,16]
parameter module.a.weight alias module.b.weight : f32[16,16]
parameter module.a.bias : f32[16]
buffer module.count : i64[] = 7
h = aten::linear(x, module.a.weight, module.a.bias) @ a
y = aten::linear(h, module.a.weight) @ b
return y = y
)";

TEST(Checkpoint, HasTheDigestOfTheModel) {
  for (const char* recipe :
       {"prune.magnitude{sparsity=0.5}", "quantize.weights{bits=3,grid=affine}",
        "prune.magnitude{sparsity=0.5},quantize.weights,prune.magnitude{sparsity=0.75}"}) {
    const ScratchDir folder;
    Model model = parse_filled(kNetwork);
    run_pass(recipe, model);
    save_checkpoint(model, folder / "c.safetensors");
    const Model read = load_checkpoint(folder / "c.safetensors");
    EXPECT_EQ(model_digest(read), model_digest(model)) << recipe;
    EXPECT_EQ(print(read), print(model)) << recipe;
    EXPECT_EQ(read.metadata, model.metadata) << recipe;
  }
}

TEST(Checkpoint, RemembersTheSizesThatSymbolsStandFor) {
  const ScratchDir folder;
  Model model = parse_filled(kNetwork);
  model.graph().inputs()[0]->type.sizes->front() = Dim("batch", 6);
  save_checkpoint(model, folder / "c.safetensors");
  const Model read = load_checkpoint(folder / "c.safetensors");
  EXPECT_EQ(read.graph().inputs()[0]->type.sizes->front().size, 6);
}

TEST(Checkpoint, IsRefusedWhenATensorIsNotWhatTheGraphSays) {
  const ScratchDir folder;
  save_checkpoint(parse_filled("input x : f32[2,3]\nparameter w : f32[4,3]\n"
                               "y = aten::linear(x, w)\nreturn y = y"),
                  folder / "c.safetensors");
  std::filesystem::path path = folder / "c.safetensors";
  std::string bytes;
  {
    std::ifstream file(path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  const size_t at = bytes.find("\"shape\":[4,3]");
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 13, "\"shape\":[3,4]");
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_THROW(load_checkpoint(path), Error);
}

}  // namespace
}  // namespace compress::testing
