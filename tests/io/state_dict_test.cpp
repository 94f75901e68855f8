// State dicts out of real files: what Python's torch wrote, and other projects' checkpoints.

#include "compress/io/state_dict.h"

#include "compress/io/pickle.h"
#include "compress/io/safetensors.h"
#include "tests/io/files.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace compress::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::filesystem::path golden(const std::string& name) {
  return source_dir() / "tests/golden/io" / name;
}

// Compares every tensor with what Python saw when it wrote the file (tests/golden/io/make.py).
void expect_as_in_python(const StateDict& state, const std::string& name) {
  const auto expected = nlohmann::ordered_json::parse(read_all(golden("expected.json")))[name];
  ASSERT_FALSE(expected.empty()) << name;
  EXPECT_EQ(state.tensors.size(), expected.size()) << name;
  for (const auto& [key, wanted] : expected.items()) {
    const at::Tensor* found = state.find(key);
    ASSERT_NE(found, nullptr) << name << ": " << key;
    EXPECT_EQ(found->scalar_type(), torch_dtype(wanted["dtype"].get<std::string>())) << key;
    EXPECT_EQ(found->sizes().vec(), wanted["sizes"].get<std::vector<int64_t>>()) << key;
    at::Tensor numbers = *found;
    if (numbers.is_complex()) numbers = at::view_as_real(numbers.to(at::kComplexDouble));
    numbers = numbers.to(at::kDouble).contiguous().flatten();
    const auto* data = numbers.const_data_ptr<double>();
    EXPECT_EQ(std::vector<double>(data, data + numbers.numel()),
              wanted["values"].get<std::vector<double>>())
        << name << ": " << key;
  }
}

class FromPython : public ::testing::TestWithParam<const char*> {};

TEST(StateDict, ReadsAFileOfNoTensors) {
  std::string bytes("\2\0\0\0\0\0\0\0{}", 10);
  EXPECT_TRUE(load_state_dict(MappedFile::from_bytes(bytes)).tensors.empty());
}

TEST_P(FromPython, LoadsAsPythonSavedIt) {
  expect_as_in_python(load_state_dict(golden(GetParam())), GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    StateDict, FromPython,
    ::testing::Values("zip.pth", "legacy.pth", "protocol1.pth", "protocol3.pth", "protocol4.pth",
                      "protocol5.pth", "plain_dict.pth", "parameters.pth", "whole_module.pth",
                      "whole_module_legacy.pth", "dtypes.pth", "dtypes_legacy.pth", "shapes.pth",
                      "views.pth", "views_legacy.pth", "lone_tensor.pth", "list.pth", "wrapped.pth",
                      "nested.pth", "evil.pth", "dtypes.safetensors", "shapes.safetensors"),
    [](const auto& info) {
      std::string name = info.param;
      std::replace(name.begin(), name.end(), '.', '_');
      return name;
    });

TEST(StateDict, SaysWhatItDidToAWrappedCheckpoint) {
  const StateDict state = load_state_dict(golden("wrapped.pth"));
  EXPECT_THAT(state.notes, Contains("took the tensors under `state_dict`"));
  EXPECT_THAT(state.notes, Contains("removed the prefix `module.` from 8 names"));
  EXPECT_THAT(state.notes, Contains(HasSubstr("left out `optimizer` (")));
  EXPECT_THAT(state.notes, Contains("left out `ema` (8 tensors)"));
  EXPECT_EQ(state.format, "torch.save (zip)");
  EXPECT_THAT(load_state_dict(golden("nested.pth")).notes,
              Contains("took the tensors under `model.state_dict`"));
  EXPECT_THAT(load_state_dict(golden("whole_module.pth")).notes,
              Contains("took parameters and buffers out of a pickled `__main__.Net`, "
                       "without running it"));
}

TEST(StateDict, KeepsTiesAndViewsOfOneStorage) {
  for (const char* name : {"zip.pth", "legacy.pth", "whole_module.pth"}) {
    EXPECT_THAT(load_state_dict(golden(name)).ties, ElementsAre(Pair("head.weight", "fc.weight")))
        << name;
  }
  for (const char* name : {"views.pth", "views_legacy.pth"}) {
    const StateDict state = load_state_dict(golden(name));
    EXPECT_THAT(state.ties, ElementsAre(Pair("same", "base")));
    state.find("base")->fill_(7);
    EXPECT_EQ(state.find("transposed")->sum().item<float>(), 84) << name;
    EXPECT_EQ(state.find("slice")->strides().vec(), std::vector<int64_t>{2});
  }
}

TEST(StateDict, RefusesTensorsAndFilesThatItDoesNotReadByName) {
  const auto message = [](const char* name) {
    const Error error = error_of([&] { load_state_dict(golden(name)); });
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << name;
    return error.message();
  };
  EXPECT_THAT(message("quantized.pth"), HasSubstr("QInt8Storage"));
  EXPECT_THAT(message("sparse.pth"), HasSubstr("`torch._utils._rebuild_sparse_tensor`"));
  EXPECT_EQ(message("script.pth"), "is a TorchScript archive");
  EXPECT_EQ(message("no_tensors.pth"), "holds no tensors (it is a dictionary)");
  EXPECT_THAT(message("deflated.zip"), HasSubstr("none of torch.save"));
}

TEST(StateDict, NamesWhatAFileIsInstead) {
  const ScratchDir scratch;
  std::string tar(600, 'x');
  tar.replace(257, 5, "ustar");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"<!DOCTYPE html><html>", "is a web page"},
      {"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"},
      {"\x1f\x8b\x08\x00", "is compressed with gzip"},
      {"GGUF....", "is a GGUF file"},
      {"\x89HDF\r\n", "is an HDF5 file"},
      {"\x93NUMPY", "is a NumPy array"},
      {tar, "is a tar archive"},
      {std::string(100, '\0'), "begins with zeros only"},
      {"hello", "is no file of weights"},
      {"\x80\x02N.", "is a Python pickle, but not one of torch.save"},
  };
  for (const auto& [bytes, expected] : cases) {
    write_all(scratch / "w.pth", bytes);
    const Error error = error_of([&] { load_state_dict(scratch / "w.pth"); });
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << expected;
    EXPECT_THAT(error.message(), HasSubstr(expected));
    EXPECT_FALSE(error.hint().empty()) << expected;
  }
}

TEST(StateDict, PointsIntoAFolder) {
  const ScratchDir scratch;
  EXPECT_EQ(error_of([&] { load_state_dict(scratch.path()); }).message(),
            "is a folder, not a file");
  save_safetensors(scratch / "model.safetensors", {{"w", at::ones({1})}});
  EXPECT_THAT(error_of([&] { load_state_dict(scratch.path()); }).hint(),
              HasSubstr("model.safetensors`?"));
}

TEST(StateDict, TellsFilesApartByContentsNotByName) {
  const ScratchDir scratch;
  // A header of 123 bytes begins with `{`, one of 128 bytes like a pickle.
  for (const size_t header : {123u, 128u}) {
    std::string text = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    text.resize(header, ' ');
    std::string bytes(8, '\0');
    bytes[0] = static_cast<char>(header);
    write_all(scratch / "w.pth", bytes + text + std::string(4, '\0'));
    EXPECT_EQ(load_state_dict(scratch / "w.pth").format, "safetensors");
  }
}

TEST(StateDict, LoadsShardsByTheirIndex) {
  const ScratchDir scratch;
  const auto index = save_sharded_safetensors(
      scratch / "m.safetensors", {{"module.a", at::ones({8})}, {"module.b", at::zeros({8})}}, 32);
  const StateDict state = load_state_dict(index);
  EXPECT_EQ(state.format, "sharded safetensors");
  ASSERT_EQ(state.tensors.size(), 2u);
  EXPECT_TRUE(at::equal(*state.find("a"), at::ones({8})));
}

// First values as Python's torch.load gives them.
struct Checkpoint {
  const char* file;
  size_t tensors;
  const char* name;
  std::vector<int64_t> sizes;
  double first;
};

class RealCheckpoint : public ::testing::TestWithParam<Checkpoint> {};

TEST_P(RealCheckpoint, Loads) {
  const Checkpoint& wanted = GetParam();
  const auto path = shared_file(std::string("checkpoints/") + wanted.file);
  if (path.empty()) GTEST_SKIP() << "no " << wanted.file;
  const StateDict state = load_state_dict(path);
  EXPECT_EQ(state.tensors.size(), wanted.tensors);
  const at::Tensor* tensor = state.find(wanted.name);
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->sizes().vec(), wanted.sizes);
  EXPECT_EQ(tensor->flatten()[0].item<double>(), wanted.first);
}

INSTANTIATE_TEST_SUITE_P(
    StateDict, RealCheckpoint,
    ::testing::Values(
        Checkpoint{"resnet20-cifar10.th", 97, "conv1.weight", {16, 3, 3, 3}, -0.13818146288394928},
        Checkpoint{"resnet56-cifar10.th", 277, "linear.bias", {10}, 0.13465537130832672},
        Checkpoint{
            "apot-resnet20-cifar10-fp32.pth.tar", 128, "fc.weight", {10, 64}, 0.119838647544384},
        Checkpoint{"distiller-resnet20-cifar10.pth.tar",
                   128,
                   "bn1.running_mean",
                   {16},
                   107.25852966308594},
        Checkpoint{"lenet-300-100-fashion-mnist.pth.tar", 6, "ip3.bias", {10}, 0.567882776260376},
        Checkpoint{"hnerv-bunny-quant-vid.pth", 42, "head_layer.weight.quant", {3, 28, 3, 3}, 75}),
    [](const auto& info) { return "File" + std::to_string(info.index); });

}  // namespace
}  // namespace compress::testing
