// Reading and writing .pt2 archives, on files that Python wrote (tests/golden/pt2/make.py).

#include "compress/io/pt2.h"

#include "compress/error.h"
#include "compress/graph/text.h"
#include "compress/graph/verify.h"
#include "compress/io/safetensors.h"
#include "tests/support/paths.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace compress {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::filesystem::path golden(const std::string& name) {
  return testing::source_dir() / "tests" / "golden" / "pt2" / name;
}

// Input and eager outputs that Python stored.
struct Expected {
  std::vector<at::Tensor> inputs, outputs;
};
Expected expected(const std::string& name) {
  const SafetensorsFile file = SafetensorsFile::open(golden(name + ".safetensors"));
  Expected result;
  for (const char* kind : {"in", "out"}) {
    std::vector<at::Tensor>& list = kind[0] == 'i' ? result.inputs : result.outputs;
    while (const auto* entry = file.find(fmt::format("{}.{}", kind, list.size()))) {
      list.push_back(file.tensor(*entry));
    }
  }
  return result;
}

void expect_same_as_eager(const Model& model, const std::string& name) {
  const at::NoGradGuard no_grad;
  const Expected eager = expected(name);
  const std::vector<at::Tensor> outputs = model.forward(eager.inputs);
  ASSERT_GE(outputs.size(), eager.outputs.size());
  ASSERT_FALSE(eager.outputs.empty());
  for (size_t i = 0; i < eager.outputs.size(); ++i) {
    EXPECT_EQ(outputs[i].sizes(), eager.outputs[i].sizes()) << name << " output " << i;
    EXPECT_TRUE(at::allclose(outputs[i], eager.outputs[i], 1e-5, 1e-6)) << name << " output " << i;
  }
}

std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

class GoldenPt2 : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenPt2, RunsLikeEagerPython) {
  expect_same_as_eager(load_pt2(golden(std::string(GetParam()) + ".pt2")), GetParam());
}

TEST_P(GoldenPt2, IsWellFormedAndPrintsStably) {
  const Model model = load_pt2(golden(std::string(GetParam()) + ".pt2"));
  const std::string text = print(model);
  EXPECT_EQ(print(parse_model(text)), text);
}

TEST_P(GoldenPt2, RunsTheSameAfterWritingAndReading) {
  const testing::ScratchDir scratch;
  save_pt2(load_pt2(golden(std::string(GetParam()) + ".pt2")), scratch / "again.pt2");
  expect_same_as_eager(load_pt2(scratch / "again.pt2"), GetParam());
}

TEST_P(GoldenPt2, WritesTheSameBytesTwice) {
  const testing::ScratchDir scratch;
  const Model model = load_pt2(golden(std::string(GetParam()) + ".pt2"));
  save_pt2(model, scratch / "a.pt2");
  save_pt2(load_pt2(scratch / "a.pt2"), scratch / "b.pt2");
  EXPECT_TRUE(read_bytes(scratch / "a.pt2") == read_bytes(scratch / "b.pt2"));
}

INSTANTIATE_TEST_SUITE_P(All, GoldenPt2,
                         ::testing::Values("net", "old_layout", "views", "fixed", "coupled",
                                           "no_grad"));

TEST(LoadPt2, RestoresTiesRolesAndNames) {
  const Model model = load_pt2(golden("net.pt2"));
  const NamedTensor* weight = model.find_tensor("tied.weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight, model.find_tensor("fc.weight"));
  EXPECT_TRUE(weight->tensor.requires_grad());
  EXPECT_EQ(weight->role, TensorRole::kParameter);
  EXPECT_EQ(model.find_tensor("bn.running_mean")->role, TensorRole::kBuffer);
  EXPECT_EQ(model.find_tensor("scale")->role, TensorRole::kConstant);
  std::vector<std::string> outputs;
  for (const Output& output : model.graph().outputs()) outputs.push_back(output.name);
  EXPECT_THAT(outputs, ElementsAre("output.0.o", "output.0.l.0", "output.0.l.1", "output.1"));
  EXPECT_EQ(model.graph().inputs()[0]->type.sizes->front().symbol, "s77");
}

TEST(LoadPt2, TurnsTheCounterOfBatchNormIntoAnUpdate) {
  const Model model = load_pt2(golden("net.pt2"));
  ASSERT_EQ(model.graph().updates().size(), 1U);
  EXPECT_EQ(model.graph().updates()[0].name, "bn.num_batches_tracked");
  model.forward(expected("net").inputs);
  EXPECT_EQ(model.tensor("bn.num_batches_tracked").item<int64_t>(), 1);
}

TEST(LoadPt2, StopsGradientsWhereTheProgramDid) {
  Model model = load_pt2(golden("no_grad.pt2"));
  const at::Tensor x = expected("no_grad").inputs[0];
  const at::Tensor gate =
      at::linear(x, model.tensor("fc.weight"), model.tensor("fc.bias")).sigmoid().detach();
  model.forward({x})[0].sum().backward();
  EXPECT_TRUE(at::allclose(model.tensor("fc.bias").grad(), gate.sum(0)));
}

TEST(LoadPt2, RefusesControlFlowByName) {
  try {
    load_pt2(golden("branch.pt2"));
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.message(), HasSubstr("`cond`"));
  }
}

TEST(GeneralizeBatch, FreesABatchSizeThatViewsAndStatesNamed) {
  const Model model = load_pt2(golden("fixed.pt2"));
  EXPECT_THAT(model.notes, IsEmpty());
  EXPECT_EQ(model.graph().inputs()[0]->type.sizes->front().symbol, "batch");
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({5, 3, 4});
  const at::Tensor together = model.forward({x})[0];
  for (int64_t i = 0; i + 2 <= 5; i += 2) {
    EXPECT_TRUE(
        at::allclose(together.narrow(0, i, 2), model.forward({x.narrow(0, i, 2)})[0], 1e-5, 1e-6));
  }
}

TEST(GeneralizeBatch, LeavesInputsAloneThatNoMemoryHolds) {
  Model model = parse_model(
      "input x : f32[1000000000000,4]\nrelu = aten::relu(x) : f32[1000000000000,4]\n"
      "return output = relu\n");
  generalize_batch(model);
  EXPECT_THAT(model.notes, ElementsAre(HasSubstr("too large to try another batch size")));
}

TEST(GeneralizeBatch, KeepsABatchThatSamplesSeeAndSaysSo) {
  const Model model = load_pt2(golden("coupled.pt2"));
  EXPECT_FALSE(model.graph().inputs()[0]->type.sizes->front().is_symbolic());
  EXPECT_THAT(model.notes, Contains(HasSubstr("depends on the batch")));
}

TEST(SavePt2, RefusesASetOfTensors) {
  const testing::ScratchDir scratch;
  try {
    save_pt2(parse_model("w : f32[2] = [1, 2]"), scratch / "w.pt2");
    FAIL() << "written";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.hint(), HasSubstr("safetensors"));
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "w.pt2"));
}

TEST(SavePt2, KeepsMetadataAndSymbols) {
  const testing::ScratchDir scratch;
  Model model = parse_model(
      "input x : f32[batch,2]\nparameter w : f32[2] = [1, 2]\nmul = aten::mul.Tensor(x, w) : "
      "f32[batch,2]\nreturn y = mul\n");
  model.metadata["lathe.note"] = "hello";
  save_pt2(model, scratch / "m.pt2");
  const Model again = load_pt2(scratch / "m.pt2");
  EXPECT_EQ(again.metadata.at("lathe.note"), "hello");
  EXPECT_EQ(again.graph().inputs()[0]->type.sizes->front().symbol, "batch");
}

}  // namespace
}  // namespace compress
