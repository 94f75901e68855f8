// Compressed models leave in .safetensors for other programs, and come back.

#include "compress/files.h"
#include "compress/graph/text.h"
#include "compress/io/safetensors.h"
#include "compress/weight.h"
#include "tests/io/files.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace compress::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// A convolution, a lifted constant of the graph, a tied pair and a symbolic batch.
Model network(const std::string& dtype = "f32") {
  std::string text = R"(
input x : T[batch,4,6,6]
parameter model.conv.weight : T[8,4,3,3]
parameter model.fc.weight alias model.tied.weight : T[8,32]
parameter model.fc.bias : T[8]
constant lifted : T[] = 2
c = aten::conv2d(x, model.conv.weight) @ conv
p = aten::adaptive_avg_pool2d(c, [2, 2])
f = aten::flatten.using_ints(p, 1)
m = aten::mul.Tensor(f, lifted)
y = aten::linear(m, model.fc.weight, model.fc.bias) @ fc
return y = y
)";
  for (size_t at; (at = text.find(" T[")) != text.npos;) text.replace(at + 1, 1, dtype);
  return parse_filled(text);
}

std::vector<std::string> names_in(const std::filesystem::path& path) {
  std::vector<std::string> names;
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const SafetensorsEntry& entry : file.entries()) names.push_back(entry.name);
  return names;
}

at::Tensor output_of(const Model& model, at::ScalarType dtype = at::kFloat) {
  at::manual_seed(3);
  return model.forward({at::randn({5, 4, 6, 6}).to(dtype)}).front();
}

TEST(SaveModel, PutsQuantizedWeightsIntoTheLayoutOfCompressedTensors) {
  const ScratchDir folder;
  Model model = network();
  run_pass("quantize.weights{bits=4,granularity=group:8}", model);
  EXPECT_THAT(save_model(model, folder / "q.safetensors"), SizeIs(1));  // rows of 36 in groups of 8
  const std::vector<std::string> names = names_in(folder / "q.safetensors");
  for (const char* part : {"weight_packed", "weight_scale", "weight_shape", "bias"})
    EXPECT_THAT(names, Contains("model.fc." + std::string(part)));
  EXPECT_THAT(names, Contains("model.conv.weight"));
  EXPECT_THAT(names, Not(Contains("model.fc.weight")));
  const Metadata metadata = SafetensorsFile::open(folder / "q.safetensors").metadata();
  const auto config = nlohmann::json::parse(metadata.at("quantization_config"));
  EXPECT_EQ(config["config_groups"]["group_0"]["targets"], nlohmann::json::array({"model.fc"}));
}

TEST(SaveModel, LosesNothingThatTheOutputsDependOn) {
  for (const char* recipe :
       {"quantize.weights{bits=4}", "quantize.weights{bits=3,grid=affine,granularity=group:4}",
        "prune.magnitude{sparsity=0.5},quantize.weights{bits=8,granularity=tensor}",
        "quantize.weights{bits=5,where=model.fc.*},prune.magnitude{sparsity=0.6}", "prune.n_m",
        "quantize.weights{format=fp8}",
        "quantize.weights{format=nvfp4},prune.magnitude{sparsity=0.6}",
        "quantize.weights{format=mxfp4,where=model.fc.*},quantize.weights{bits=4,where=*.conv.*"
        "}"}) {
    const ScratchDir folder;
    Model model = network();
    run_pass(recipe, model);
    save_model(model, folder / "q.safetensors");
    const Model read = load_model((folder / "q.safetensors").string());
    EXPECT_TRUE(at::equal(output_of(read), output_of(model))) << recipe;
    for (const Weight& weight : weights(std::as_const(model))) {
      for (const Weight& other : weights(read)) {
        if (other.name() != weight.name()) continue;
        EXPECT_TRUE(at::equal(other.effective(), weight.effective())) << recipe << weight.name();
        if (weight.is_quantized() && !weight.mask().defined()) {
          EXPECT_EQ(other.encoding(), weight.encoding()) << recipe;
        }
      }
    }
    save_model(read, folder / "again.safetensors");
    EXPECT_EQ(read_all(folder / "again.safetensors").size(),
              read_all(folder / "q.safetensors").size());
  }
}

TEST(SaveModel, WritesFormatsWithoutALayoutDecodedAndSaysSo) {
  for (const char* recipe : {"quantize.weights{format=nf4}", "quantize.hqq{group_size=8}"}) {
    const ScratchDir folder;
    Model model = network();
    run_pass(recipe, model);
    const std::vector<std::string> notes = save_model(model, folder / "q.safetensors");
    EXPECT_THAT(notes, SizeIs(2)) << recipe;
    EXPECT_THAT(notes, Contains(HasSubstr("written without compression"))) << recipe;
    const Model read = load_model((folder / "q.safetensors").string());
    EXPECT_TRUE(at::equal(output_of(read), output_of(model))) << recipe;
    save_model(model, folder / "q.pt2");
    const Model program = load_model((folder / "q.pt2").string());
    EXPECT_EQ(weights(program)[0].encoding(), weights(model)[0].encoding()) << recipe;
  }
}

TEST(SaveModel, DecodesHalfPrecisionWeightsInTheirOwnDtype) {
  const ScratchDir folder;
  Model model = network("bf16");
  run_pass("quantize.weights{bits=8}", model);
  save_model(model, folder / "q.safetensors");
  const Model read = load_model((folder / "q.safetensors").string());
  EXPECT_TRUE(at::equal(output_of(read, at::kBFloat16), output_of(model, at::kBFloat16)));
}

TEST(SaveModel, KeepsTheEncodingOfABareSetOfTensors) {
  const ScratchDir folder;
  Model model = parse_filled("a.weight : f32[16,64]\nb.weight : f32[8,5]\nb.bias : f32[8]");
  run_pass("quantize.weights{bits=4,where=a.*}", model);
  save_model(model, folder / "set.safetensors");
  Model read = load_model((folder / "set.safetensors").string());
  EXPECT_TRUE(read.is_tensor_set());
  EXPECT_EQ(effective_weight(read, "a.weight"), effective_weight(model, "a.weight"));
  const std::vector<Weight> found = weights(std::as_const(read));
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_EQ(found[0].encoding(), "int4 channel");
  EXPECT_EQ(read.graph().outputs().size(), 3u);
}

TEST(SaveModel, LeavesPlainModelsUnderTheirOwnNames) {
  const ScratchDir folder;
  const Model model = network();
  EXPECT_THAT(save_model(model, folder / "plain.safetensors"), IsEmpty());
  const Metadata metadata = SafetensorsFile::open(folder / "plain.safetensors").metadata();
  EXPECT_FALSE(metadata.contains("quantization_config"));
  const Model read = load_model((folder / "plain.safetensors").string());
  EXPECT_EQ(print(read), print(model));
}

TEST(SaveModel, WritesTheConfigurationBesideModelSafetensorsOnly) {
  const ScratchDir folder;
  Model model = network();
  run_pass("quantize.weights", model);
  save_model(model, folder / "q.safetensors");
  EXPECT_FALSE(std::filesystem::exists(folder / "config.json"));
  save_model(model, folder / "model.safetensors");
  const auto config = nlohmann::json::parse(read_all(folder / "config.json"));
  EXPECT_EQ(config["quantization_config"]["quant_method"], "compressed-tensors");
  // A plain model of the same name is not called quantized by what an older one left.
  save_model(network(), folder / "model.safetensors");
  EXPECT_FALSE(std::filesystem::exists(folder / "config.json"));
}

TEST(SaveModel, NeverOverwritesTheConfigurationOfOthers) {
  const ScratchDir folder;
  Model model = network();
  run_pass("quantize.weights", model);
  const std::string theirs = R"({"model_type": "llama", "quantization_config": {}})";
  write_all(folder / "config.json", theirs);
  const std::vector<std::string> notes = save_model(model, folder / "model.safetensors");
  EXPECT_EQ(read_all(folder / "config.json"), theirs);
  EXPECT_THAT(notes, Contains(HasSubstr("config.json is left as it is")));
}

TEST(LoadModel, ReadsTheConfigurationBesideAPackedFile) {
  const ScratchDir folder;
  Model model = parse_filled("a.weight : f32[16,64]");
  run_pass("quantize.weights{bits=4}", model);
  save_model(model, folder / "model.safetensors");
  // As the library writes it: nothing but the format in the metadata.
  save_safetensors(folder / "model.safetensors",
                   SafetensorsFile::open(folder / "model.safetensors").tensors(),
                   {{"format", "pt"}});
  Model read = load_model((folder / "model.safetensors").string());
  EXPECT_EQ(effective_weight(read, "a.weight"), effective_weight(model, "a.weight"));
  const auto file = static_cast<int64_t>(read_all(folder / "model.safetensors").size());
  const auto config = static_cast<int64_t>(read_all(folder / "config.json").size());
  EXPECT_EQ(model_file_bytes(folder / "model.safetensors"), file + config);
  std::filesystem::remove(folder / "config.json");
  EXPECT_THAT(load_model((folder / "model.safetensors").string()).notes,
              Contains(HasSubstr("no config.json")));
}

}  // namespace
}  // namespace compress::testing
