// Programs that lie: every edit of a good file's JSON gives an error, never a crash.

#include "compress/error.h"
#include "compress/io/pt2.h"
#include "compress/io/zip.h"
#include "tests/support/paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <functional>

namespace compress {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// One entry of a good archive, edited at a JSON pointer.
struct Lie {
  const char* name;
  const char* entry;
  const char* pointer;
  const char* value;    ///< JSON; empty removes what is there
  const char* message;  ///< part of the error
};

constexpr const char* kProgram = "models/model.json";
constexpr const char* kWeights = "data/weights/model_weights_config.json";

const Lie kLies[] = {
    {"NoGraph", kProgram, "/graph_module/graph", "", "`graph` is missing"},
    {"GraphIsAList", kProgram, "/graph_module/graph", "[]", "expected an object"},
    {"NoNodes", kProgram, "/graph_module/graph/nodes", "", "`nodes` is missing"},
    {"NodesAreANumber", kProgram, "/graph_module/graph/nodes", "3", "expected an array"},
    {"TargetIsANumber", kProgram, "/graph_module/graph/nodes/0/target", "7", "expected a string"},
    {"UnknownFunction", kProgram, "/graph_module/graph/nodes/0/target", "\"os.system\"",
     "os.system"},
    {"ArgumentMissing", kProgram, "/graph_module/graph/nodes/0/inputs", "[]", "is missing"},
    {"ArgumentUnknown", kProgram, "/graph_module/graph/nodes/0/inputs/0/name", "\"nonsense\"",
     "is missing"},
    {"UnionOfNothing", kProgram, "/graph_module/graph/nodes/0/inputs/0/arg", "{}", "one member"},
    {"UnionOfNonsense", kProgram, "/graph_module/graph/nodes/0/inputs/0/arg", "{\"as_x\": 1}",
     "as_x"},
    {"UsedBeforeComputed", kProgram, "/graph_module/graph/nodes/0/inputs/0/arg/as_tensor/name",
     "\"linear_1\"", "used before"},
    {"ComputedTwice", kProgram, "/graph_module/graph/nodes/1/outputs/0/as_tensor/name", "\"x\"",
     "computed twice"},
    {"DtypeNonsense", kProgram, "/graph_module/graph/tensor_values/x/dtype", "99", "no dtype"},
    {"NegativeSize", kProgram, "/graph_module/graph/tensor_values/x/sizes/1/as_int", "-3",
     "negative"},
    {"HugeInteger", kProgram, "/graph_module/graph/tensor_values/x/sizes/1/as_int",
     "18446744073709551615", "64 bits"},
    {"MoreElementsThan64Bits", kProgram, "/graph_module/graph/tensor_values/x/sizes/1/as_int",
     "4611686018427387904", "does not fit 64 bits"},
    {"SizeThatEndsTheList", kProgram, "/graph_module/graph/tensor_values/x/sizes/1",
     R"({"as_expr": {"expr_str": "s0]"}})", "`s0]` is not a size"},
    {"OutputsMissing", kProgram, "/graph_module/graph/outputs", "[]", "outputs"},
    {"UnknownInputKind", kProgram, "/graph_module/signature/input_specs/0", "{\"spell\": {}}",
     "spell"},
    {"NoSuchTensor", kProgram, "/graph_module/signature/input_specs/0/parameter/parameter_name",
     "\"ghost\"", "ghost"},
    {"OldMajor", kProgram, "/schema_version/major", "4", "schema version 4"},
    {"NewMajor", kProgram, "/schema_version/major", "9", "schema version 9"},
    {"NoConfig", kWeights, "/config", "", "`config` is missing"},
    {"PayloadMissing", kWeights, "/config/fc.bias/path_name", "\"weight_99\"", "weight_99"},
    {"PayloadOutside", kWeights, "/config/fc.bias/path_name", "\"../../../etc/passwd\"", "has no"},
    {"SizeBeyondThePayload", kWeights, "/config/fc.bias/tensor_meta/sizes/0/as_int", "1000",
     "bytes"},
    {"AbsurdSize", kWeights, "/config/fc.bias/tensor_meta/sizes/0/as_int", "4611686018427387904",
     "elements"},
    {"NegativeStride", kWeights, "/config/fc.bias/tensor_meta/strides/0/as_int", "-1", "stride"},
    {"OffsetBeyondThePayload", kWeights, "/config/fc.bias/tensor_meta/storage_offset/as_int", "1",
     "bytes"},
    {"RankMismatch", kWeights, "/config/fc.bias/tensor_meta/strides", "[]", "strides"},
    {"Pickled", kWeights, "/config/fc.bias/use_pickle", "true", "pickled"},
};

std::filesystem::path good_file() {
  return testing::source_dir() / "tests" / "golden" / "pt2" / "net.pt2";
}

// The good archive with one entry replaced, in memory of a scratch file.
void write_edited(const std::filesystem::path& path, const std::string& entry,
                  const std::function<std::string(std::string)>& edit) {
  const ZipReader good = ZipReader::open(good_file());
  ZipWriter bad(path);
  for (const ZipEntry& part : good.entries()) {
    const std::string contents = good.read(part);
    bad.add(part.name, part.name == "net/" + entry ? edit(contents) : contents);
  }
  bad.finish();
}

class HostilePt2 : public ::testing::TestWithParam<Lie> {};

TEST_P(HostilePt2, IsAnErrorThatSaysWhatAndWhere) {
  const Lie& lie = GetParam();
  const testing::ScratchDir scratch;
  write_edited(scratch / "bad.pt2", lie.entry, [&](const std::string& text) {
    json document = json::parse(text);
    const json::json_pointer pointer(lie.pointer);
    if (lie.value[0] == '\0') {
      document[pointer.parent_pointer()].erase(pointer.back());
    } else {
      document[pointer] = json::parse(lie.value);
    }
    return document.dump();
  });
  try {
    load_pt2(scratch / "bad.pt2");
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(lie.message));
    EXPECT_THAT(error.where(), HasSubstr("bad.pt2"));
  }
}

INSTANTIATE_TEST_SUITE_P(All, HostilePt2, ::testing::ValuesIn(kLies),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(HostilePt2, BrokenJsonNamesTheByte) {
  const testing::ScratchDir scratch;
  write_edited(scratch / "bad.pt2", kProgram,
               [](const std::string& text) { return text.substr(0, 100); });
  try {
    load_pt2(scratch / "bad.pt2");
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadFile);
    EXPECT_THAT(error.message(), HasSubstr("byte 101"));
  }
}

TEST(HostilePt2, DeepNestingIsRefused) {
  const testing::ScratchDir scratch;
  write_edited(scratch / "bad.pt2", kProgram,
               [](const std::string&) { return std::string(1 << 20, '['); });
  EXPECT_THROW(load_pt2(scratch / "bad.pt2"), Error);
}

TEST(HostilePt2, EveryTruncationIsAnError) {
  const testing::ScratchDir scratch;
  const auto size = std::filesystem::file_size(good_file());
  for (uintmax_t length = 1; length < size; length += 997) {
    const auto path = scratch / "cut.pt2";
    std::filesystem::copy_file(good_file(), path,
                               std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(path, length);
    EXPECT_THROW(load_pt2(path), Error) << length;
  }
}

}  // namespace
}  // namespace compress
