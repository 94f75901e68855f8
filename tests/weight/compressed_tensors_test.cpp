// Tests of compress/compressed_tensors.

#include "compress/io/compressed_tensors.h"

#include "compress/error.h"
#include "compress/graph/interpreter.h"
#include "compress/graph/text.h"
#include "compress/weight.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;

// Signed codes to the words (as hexadecimal) that the library's pack_to_int32 (0.20.0) made of
// them.
struct Golden {
  int bits;
  std::vector<int64_t> codes;
  std::vector<int64_t> words;
};

TEST(PackWords, MatchesTheLibrary) {
  const std::vector<Golden> goldens = {
      {2, {-2, 0, 0, -2, -2, 0, 0, -2, -2, 0, 0}, {0x00282828}},
      {3, {-4, 2, 2, -4, 0, -2, -2, 0, -4, 2, 2}, {0xb08941b0, 0x00000001}},
      {4, {-8, -2, 6, 0, -4, -6, -6, -4, 0, 6, -2}, {0x42248e60, 0x000006e8}},
      {5, {-16, -10, -2, 8, -12, 2, -14, 4, -8, 14, 6}, {0xa44c38c0, 0x005bc8a0}},
      {8,
       {-128, -122, -114, -104, -92, -78, -62, -44, -24, -2, 22},
       {0x180e0600, 0x54423224, 0x00967e68}}};
  for (const Golden& golden : goldens) {
    const at::Tensor codes =
        (at::tensor(golden.codes) + (1 << (golden.bits - 1))).to(at::kByte).view({1, -1});
    const at::Tensor words = pack_words(codes, golden.bits);
    EXPECT_TRUE(at::equal(words.to(at::kLong).bitwise_and(0xffffffffLL),
                          at::tensor(golden.words).view({1, -1})))
        << golden.bits;
    EXPECT_TRUE(at::equal(unpack_words(words, golden.bits, codes.size(1)), codes));
  }
}

Model network() {
  return parse_filled(R"(
input x : f32[2,8,4,4]
parameter conv.weight : f32[6,8,3,3]
parameter up.weight : f32[6,4,2,2]
parameter fc.weight : f32[5,36]
parameter fc.bias : f32[5]
c = aten::conv2d(x, conv.weight) @ conv
u = aten::conv_transpose2d.input(c, up.weight) @ up
f = aten::flatten.using_ints(u, 1)
y = aten::linear(f, fc.weight, fc.bias) @ fc
return y = y
)");
}

std::map<std::string, at::Tensor> effective(const Model& model) {
  std::map<std::string, at::Tensor> tensors;
  for (const Weight& weight : weights(model)) tensors[weight.name()] = weight.effective();
  return tensors;
}

TEST(CompressedTensors, ComeBackEqualForEveryWidthAndGrid) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const char* grid : {"symmetric", "affine"}) {
      for (const char* granularity : {"tensor", "channel", "group:12"}) {
        Model model = network();
        run_pass("prune.magnitude{sparsity=0.3}", model);
        run_pass("quantize.weights{bits=" + std::to_string(bits) + ",grid=" + grid +
                     ",granularity=" + granularity + "}",
                 model);
        run_pass("prune.magnitude{sparsity=0.5}", model);
        const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model));
        const Model back = compressed_tensor_set(packed.tensors, packed.metadata);
        const auto expected = effective(model), found = effective(back);
        ASSERT_EQ(found.size(), 3u);
        for (const auto& [name, tensor] : expected) {
          EXPECT_TRUE(at::equal(found.at(name), tensor)) << name << ' ' << bits << ' ' << grid;
        }
      }
    }
  }
}

Model wide_network() {
  return parse_filled(R"(
input x : f32[2,4,16,16]
parameter conv.weight : f32[6,4,4,4]
parameter fc.weight : f32[5,96]
c = aten::conv2d(x, conv.weight, none, [4, 4]) @ conv
f = aten::flatten.using_ints(c, 1)
y = aten::linear(f, fc.weight) @ fc
return y = y
)");
}

TEST(CompressedTensors, HaveTheLibrarysLayoutsOfFloats) {
  const std::map<std::string, std::string> layouts = {
      {"fp8", "naive-quantized"},
      {"fp8,granularity=tensor", "naive-quantized"},
      {"fp8,granularity=group:16", "naive-quantized"},
      {"mxfp4", "mxfp4-pack-quantized"},
      {"nvfp4", "nvfp4-pack-quantized"}};
  for (const auto& [options, layout] : layouts) {
    Model model = wide_network();
    run_pass("quantize.weights{format=" + options + "}", model);
    run_pass("prune.magnitude{sparsity=0.5}", model);
    const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model));
    const auto config = nlohmann::json::parse(packed.metadata.at(kQuantizationConfigKey));
    EXPECT_EQ(config["format"], layout);
    EXPECT_EQ(config["config_groups"]["group_0"]["weights"]["type"], "float");
    const Model back = compressed_tensor_set(packed.tensors, packed.metadata);
    const auto expected = effective(model), found = effective(back);
    ASSERT_EQ(found.size(), 2u);
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(at::equal(found.at(name), tensor)) << name << ' ' << options;
    }
  }
}

TEST(CompressedTensors, MixFormatsOfLayers) {
  Model model = wide_network();
  run_pass("quantize.weights{format=nvfp4,where=fc.*}", model);
  run_pass("quantize.weights{bits=4,where=conv.*}", model);
  const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model));
  const auto config = nlohmann::json::parse(packed.metadata.at(kQuantizationConfigKey));
  EXPECT_EQ(config["format"], "mixed-precision");
  EXPECT_EQ(effective(compressed_tensor_set(packed.tensors, packed.metadata)).size(), 2u);
}

TEST(CompressedTensors, DecodeWhatTheLibraryLacksAndSaySo) {
  for (const char* options : {"format=nf4", "format=mxfp4,where=conv.*"}) {
    Model model = options == std::string("format=nf4") ? wide_network() : network();
    run_pass("quantize.weights{" + std::string(options) + "}", model);
    std::vector<std::string> notes;
    const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model, &notes));
    ASSERT_FALSE(notes.empty()) << options;
    EXPECT_THAT(notes.at(0), ::testing::AnyOf(HasSubstr("the library has no nf4"),
                                              HasSubstr("whole blocks, not of 72")));
    EXPECT_TRUE(packed.metadata.empty());
  }
}

TEST(CompressedTensors, RefuseFloatsWhoseSizesDoNotFit) {
  for (const char* format : {"fp8", "mxfp4", "nvfp4"}) {
    Model model = wide_network();
    run_pass("quantize.weights{format=" + std::string(format) + "}", model);
    const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model));
    for (size_t i = 0; i < packed.tensors.size(); ++i) {
      CompressedTensors damaged = packed;
      damaged.tensors[i].second = at::zeros({7, 3}, damaged.tensors[i].second.options());
      EXPECT_THROW(compressed_tensor_set(damaged.tensors, damaged.metadata), Error)
          << damaged.tensors[i].first;
      if (damaged.tensors[i].first.ends_with(".weight")) continue;  // then it is a plain weight
      damaged.tensors[i].second = at::zeros({7, 3}, at::kDouble);
      EXPECT_THROW(compressed_tensor_set(damaged.tensors, damaged.metadata), Error)
          << damaged.tensors[i].first;
    }
  }
}

TEST(CompressedTensors, UnpackToTheTensorsOfTheGraph) {
  Model model = network();
  run_pass("quantize.weights{bits=3,grid=affine}", model);
  const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model));
  std::map<std::string, at::Tensor> unpacked;
  for (const auto& [name, tensor] : unpack_compressed_tensors(packed.tensors, packed.metadata)) {
    unpacked[name] = tensor;
  }
  EXPECT_EQ(unpacked.size(), model.tensors().size());
  for (const NamedTensor& tensor : model.tensors()) {
    EXPECT_TRUE(at::equal(unpacked.at(tensor.name), tensor.tensor)) << tensor.name;
  }
}

TEST(CompressedTensors, GroupsLayersByTheirScheme) {
  Model model = network();
  run_pass("quantize.weights{bits=4,where=conv.*}", model);
  const auto packed = pack_compressed_tensors(for_compressed_tensors(model));
  const auto config = nlohmann::json::parse(packed.metadata.at(kQuantizationConfigKey));
  EXPECT_EQ(config["config_groups"]["group_0"]["targets"], nlohmann::json({"conv"}));
  EXPECT_EQ(config["config_groups"]["group_0"]["weights"]["strategy"], "channel");
  EXPECT_EQ(config["ignore"], nlohmann::json({"up", "fc"}));
}

TEST(CompressedTensors, WriteZerosInPlaceOfAMask) {
  Model model = network();
  run_pass("prune.magnitude{sparsity=0.5}", model);
  const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model));
  EXPECT_TRUE(packed.metadata.empty());
  std::map<std::string, at::Tensor> written(packed.tensors.begin(), packed.tensors.end());
  EXPECT_EQ(written.size(), 4u);
  EXPECT_EQ((written.at("fc.weight") == 0).sum().item<int64_t>(), 90);
  EXPECT_EQ(weights(model)[2].encoding(), "f32 mask");  // the model itself stays
}

TEST(CompressedTensors, DecodeGroupsThatDoNotDivideARowAndSaySo) {
  Model model = network();
  run_pass("quantize.weights{bits=4,granularity=group:7}", model);
  std::vector<std::string> notes;
  const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model, &notes));
  EXPECT_EQ(notes.size(), 3u);
  EXPECT_THAT(notes.at(0), HasSubstr("groups of 7"));
  EXPECT_TRUE(packed.metadata.empty());
}

TEST(CompressedTensors, RefuseSizesThatDoNotFit) {
  Model model = network();
  run_pass("quantize.weights{bits=4}", model);
  const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model));
  for (size_t i = 0; i < packed.tensors.size(); ++i) {
    if (packed.tensors[i].first.find("weight_") == std::string::npos) continue;
    CompressedTensors damaged = packed;
    damaged.tensors[i].second = at::ones({3, 3}, damaged.tensors[i].second.options());
    EXPECT_THROW(compressed_tensor_set(damaged.tensors, damaged.metadata), Error)
        << damaged.tensors[i].first;
    damaged.tensors.erase(damaged.tensors.begin() + static_cast<int64_t>(i));
    if (packed.tensors[i].first.ends_with("_packed")) continue;  // then nothing is packed
    EXPECT_THROW(compressed_tensor_set(damaged.tensors, damaged.metadata), Error);
  }
}

TEST(CompressedTensors, WriteAFolderWithAConfiguration) {
  Model model = network();
  run_pass("quantize.weights{bits=4}", model);
  const ScratchDir scratch;
  save_compressed_tensors(model, scratch / "model");
  EXPECT_TRUE(std::filesystem::exists(scratch / "model/config.json"));
  const SafetensorsFile file = SafetensorsFile::open(scratch / "model/model.safetensors");
  EXPECT_NE(file.find("conv.weight_packed"), nullptr);
  EXPECT_TRUE(is_compressed_tensors(file.metadata()));
}

}  // namespace
}  // namespace compress::testing
