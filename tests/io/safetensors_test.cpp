// Safetensors: round trips bit by bit, ties, streaming, shards, and each way a header can lie.

#include "compress/io/safetensors.h"

#include "compress/io/little_endian.h"
#include "tests/io/files.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.nbytes() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

NamedTensors all_dtypes() {
  NamedTensors tensors;
  for (const at::ScalarType dtype :
       {at::kBool, at::kByte, at::kChar, at::kUInt16, at::kShort, at::kUInt32, at::kInt,
        at::kUInt64, at::kLong, at::kFloat8_e5m2, at::kFloat8_e4m3fn, at::kFloat8_e5m2fnuz,
        at::kFloat8_e4m3fnuz, at::kHalf, at::kBFloat16, at::kFloat, at::kDouble,
        at::kComplexFloat}) {
    const at::Tensor values = at::arange(15, at::kFloat).view({3, 5});
    tensors.emplace_back(c10::toString(dtype), values.to(dtype));
  }
  tensors.emplace_back("scalar", at::scalar_tensor(2.5));
  tensors.emplace_back("empty", at::zeros({0, 3}));
  tensors.emplace_back("strided", at::arange(12, at::kFloat).view({3, 4}).t());
  return tensors;
}

void expect_same(const NamedTensors& found, const NamedTensors& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].first, expected[i].first);
    EXPECT_TRUE(same_bits(found[i].second, expected[i].second)) << expected[i].first;
  }
}

TEST(Safetensors, RoundTripsEveryDtypeInOrderWithMetadata) {
  const ScratchDir scratch;
  const Metadata metadata = {{"format", "pt"}, {"quote\"", "ü\n"}};
  save_safetensors(scratch / "a.safetensors", all_dtypes(), metadata);
  const auto file = SafetensorsFile::open(scratch / "a.safetensors");
  EXPECT_EQ(file.metadata(), metadata);
  expect_same(file.tensors(), all_dtypes());
  // The widest types lie first, so that nothing had to be copied.
  const auto* begin = reinterpret_cast<const char*>(file.file()->bytes().data());
  for (const auto& [name, tensor] : file.tensors()) {
    const auto* data = static_cast<const char*>(tensor.const_data_ptr());
    EXPECT_TRUE(tensor.numel() == 0 || (data > begin && data < begin + file.file()->size()))
        << name;
  }
}

TEST(Safetensors, GivesTheSameBytesTwice) {
  const ScratchDir scratch;
  save_safetensors(scratch / "a", all_dtypes(), {{"b", "1"}, {"a", "2"}});
  save_safetensors(scratch / "b", all_dtypes(), {{"a", "2"}, {"b", "1"}});
  EXPECT_EQ(read_all(scratch / "a"), read_all(scratch / "b"));
}

TEST(Safetensors, StoresTiesOnceAndRestoresThem) {
  const ScratchDir scratch;
  const at::Tensor weight = at::rand({100, 10});
  save_safetensors(scratch / "a", {{"embed", weight}, {"other", weight.t()}, {"head", weight}});
  const auto file = SafetensorsFile::open(scratch / "a");
  EXPECT_EQ(file.entries().size(), 2u);  // a transposed view is no tie: it is written out
  EXPECT_THAT(file.ties(), ElementsAre(Pair("head", "embed")));
  EXPECT_TRUE(file.metadata().empty());
  const NamedTensors tensors = file.tensors();
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[2].first, "head");
  EXPECT_EQ(tensors[2].second.const_data_ptr(), tensors[0].second.const_data_ptr());
  EXPECT_TRUE(tensors[2].second.is_alias_of(tensors[0].second));
}

TEST(Safetensors, StreamsIntoReservedRoom) {
  const ScratchDir scratch;
  const std::vector<std::string> names = {"a", "b\"\n", "c"};
  SafetensorsWriter writer(scratch / "s", SafetensorsWriter::header_bound(names, 2));
  writer.add("a", at::ones({3}, at::kBool));
  writer.add("b\"\n", at::arange(4, at::kFloat));
  writer.add_tie("c", "a");
  EXPECT_EQ(writer.data_bytes(), 19u);
  EXPECT_FALSE(std::filesystem::exists(scratch / "s"));
  writer.finish();
  const auto file = SafetensorsFile::open(scratch / "s");
  expect_same(file.tensors(), {{"a", at::ones({3}, at::kBool)},
                               {"b\"\n", at::arange(4, at::kFloat)},  // misaligned: copied
                               {"c", at::ones({3}, at::kBool)}});
}

TEST(Safetensors, TheHeaderBoundHoldsForManyTies) {
  const ScratchDir scratch;
  NamedTensors tensors;
  const at::Tensor weight = at::ones({1, 1, 1, 1});
  for (int i = 0; i < 500; ++i) {
    tensors.emplace_back("layer\"" + std::to_string(i), weight);
    tensors.emplace_back("free.very.long.name.of.a.layer" + std::to_string(i), at::ones({1}));
  }
  save_safetensors(scratch / "s", tensors);
  EXPECT_EQ(SafetensorsFile::open(scratch / "s").ties().size(), 499u);
}

TEST(Safetensors, SaysWhenTheReservedRoomIsTooSmall) {
  const ScratchDir scratch;
  SafetensorsWriter writer(scratch / "s", 8);
  for (int i = 0; i < 10; ++i) writer.add(std::to_string(i), at::ones({1}));
  EXPECT_THAT(error_of([&] { writer.finish(); }).message(), HasSubstr("were reserved"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "s"));
}

TEST(Safetensors, RefusesWhatTheFormatCannotHold) {
  const ScratchDir scratch;
  const auto message = [&](const std::string& name, const at::Tensor& tensor) {
    return error_of([&] {
             save_safetensors(scratch / "s", {{"x", at::ones({1})}, {name, tensor}});
           })
        .message();
  };
  EXPECT_EQ(message("x", at::ones({1})), "two tensors have this name");
  EXPECT_EQ(message("__metadata__", at::ones({1})), "is no name for a tensor in this format");
  EXPECT_EQ(message("\xff", at::ones({1})), "a tensor's name is not UTF-8");
  EXPECT_THAT(message("c", at::ones({1}, at::kComplexDouble)), HasSubstr("no type for Complex"));
  EXPECT_THAT(message("s", at::ones({2, 2}).to_sparse()), HasSubstr("only dense"));
  EXPECT_EQ(files_in(scratch.path()), 0u);
}

TEST(Safetensors, ShardsAndReadsBackThroughTheIndex) {
  const ScratchDir scratch;
  NamedTensors tensors;
  for (int i = 0; i < 5; ++i) {
    tensors.emplace_back("w" + std::to_string(i), at::full({100}, i, at::kFloat));
  }
  tensors.emplace_back("tied", tensors[1].second);
  const auto index = save_sharded_safetensors(scratch / "m.safetensors", tensors, 900);
  EXPECT_EQ(index.filename(), "m.safetensors.index.json");
  EXPECT_EQ(files_in(scratch.path()), 4u);
  EXPECT_TRUE(std::filesystem::exists(scratch / "m-00003-of-00003.safetensors"));
  const NamedTensors found = load_sharded_safetensors(index);
  ASSERT_EQ(found.size(), 6u);
  for (const auto& [name, tensor] : found) {
    const int value = name == "tied" ? 1 : name[1] - '0';
    EXPECT_TRUE(at::equal(tensor, at::full({100}, value, at::kFloat))) << name;
  }
  const auto single = save_sharded_safetensors(scratch / "one.safetensors", tensors, 1 << 20);
  EXPECT_EQ(single, scratch / "one.safetensors");
}

TEST(Safetensors, RefusesAnIndexThatLiesAboutItsShards) {
  const ScratchDir scratch;
  save_safetensors(scratch / "a.safetensors", {{"w", at::ones({2})}});
  save_safetensors(scratch / "b.safetensors", {{"w", at::ones({2})}, {"v", at::ones({2})}});
  const auto error = [&](const std::string& map) {
    write_all(scratch / "i.json", R"({"weight_map": )" + map + "}");
    return error_of([&] { load_sharded_safetensors(scratch / "i.json"); });
  };
  EXPECT_THAT(error(R"({"w": "../a.safetensors"})").message(), HasSubstr("in the same folder"));
  EXPECT_THAT(error(R"({"w": 1})").message(), HasSubstr("in the same folder"));
  EXPECT_THAT(error(R"({"x": "a.safetensors"})").message(), HasSubstr("`x` is not in"));
  EXPECT_THAT(error(R"({"w": "a.safetensors", "v": "b.safetensors"})").message(),
              HasSubstr("is in `a.safetensors` and in `b.safetensors`"));
  EXPECT_THAT(error(R"({"w": "a.safetensors", "w": "b.safetensors"})").message(),
              HasSubstr("appears twice"));
  EXPECT_THAT(error(R"([1])").message(), HasSubstr("has no object `weight_map`"));
  EXPECT_EQ(error(R"({"w": "c.safetensors"})").code(), ErrorCode::kIo);
}

struct BadHeader {
  const char* name;
  std::string header;
  size_t data_bytes;
  const char* message;
};

class SafetensorsDamage : public ::testing::TestWithParam<BadHeader> {};

std::string file_of(const std::string& header, size_t data_bytes) {
  std::string bytes;
  append_le<uint64_t>(bytes, header.size());
  return bytes + header + std::string(data_bytes, '\0');
}

TEST_P(SafetensorsDamage, IsRefusedByName) {
  const auto& [name, header, data_bytes, message] = GetParam();
  const auto file = MappedFile::from_bytes(file_of(header, data_bytes));
  EXPECT_THAT(error_of([&] { SafetensorsFile{file}; }).what(), HasSubstr(message));
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
         offsets + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Safetensors, SafetensorsDamage,
    ::testing::Values(
        BadHeader{"no_json", "{\"a", 0, "no valid JSON"},
        BadHeader{"trailing", "{} x", 0, "no valid JSON"},
        BadHeader{"zero_byte", std::string("{}\0 x", 5), 0, "a zero byte"},
        BadHeader{"list", "[]          ", 0, "unexpected list"},
        BadHeader{"deep", std::string(5000, '['), 0, "unexpected list"},
        BadHeader{"dtype", "{" + entry("a", "F99", "[1]", "[0,4]") + "}", 4, "unknown dtype `F99`"},
        BadHeader{"short", "{" + entry("a", "F32", "[2]", "[0,4]") + "}", 4, "expected 0 to 8"},
        BadHeader{"hole", "{" + entry("a", "F32", "[1]", "[4,8]") + "}", 8, "expected 0 to 4"},
        BadHeader{"overlap",
                  "{" + entry("a", "F32", "[2]", "[0,8]") + "," +
                      entry("b", "F32", "[2]", "[4,12]") + "}",
                  12, "expected 8 to 16"},
        BadHeader{"rest", "{" + entry("a", "F32", "[1]", "[0,4]") + "}", 9,
                  "has 9 bytes of tensors, but its header describes 4"},
        BadHeader{"cut", "{" + entry("a", "F32", "[2]", "[0,8]") + "}", 7,
                  "has 7 bytes of tensors, but its header describes 8"},
        BadHeader{"backwards", "{" + entry("a", "F32", "[1]", "[4,0]") + "}", 4, "expected 0 to 4"},
        BadHeader{
            "twice",
            "{" + entry("a", "F32", "[1]", "[0,4]") + "," + entry("a", "F32", "[1]", "[4,8]") + "}",
            8, "`a` appears twice"},
        BadHeader{"overflow", "{" + entry("a", "F32", "[4294967296,4294967296]", "[0,0]") + "}", 0,
                  "more than a tensor can have"},
        BadHeader{"negative", "{" + entry("a", "F32", "[-1]", "[0,4]") + "}", 4, "negative"},
        BadHeader{"fraction", "{" + entry("a", "F32", "[1.5]", "[0,4]") + "}", 4, "number 1.5"},
        BadHeader{"three_offsets", "{" + entry("a", "F32", "[1]", "[0,4,8]") + "}", 4,
                  "unexpected number"},
        BadHeader{"unknown_key", R"({"a":{"dtype":"F32","form":1}})", 4, "unknown key `form`"},
        BadHeader{"missing_key", R"({"a":{"dtype":"F32","shape":[]}})", 4, "is missing"},
        BadHeader{"metadata", R"({"__metadata__":{"a":1}})", 0, "unexpected number"},
        BadHeader{"ties", R"({"__metadata__":{"lathe.ties":"{\"b\":\"a\"}"}})", 0,
                  "is no further name"},
        BadHeader{"ties_json", R"({"__metadata__":{"lathe.ties":"{"}})", 0, "no valid JSON"},
        BadHeader{"half_bytes", "{" + entry("a", "F4", "[1]", "[0,1]") + "}", 1, "4 bits"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Safetensors, RefusesAHeaderLargerThanTheFile) {
  std::string bytes;
  append_le<uint64_t>(bytes, 1000);
  EXPECT_THAT(error_of([&] { SafetensorsFile{MappedFile::from_bytes(bytes + "{}")}; }).message(),
              HasSubstr("claims a header of 1000 bytes in a file of 10"));
}

TEST(Safetensors, OpensTypesThatLibTorchLacksButDoesNotMakeTensorsOfThem) {
  const auto file = SafetensorsFile{
      MappedFile::from_bytes(file_of("{" + entry("a", "F4", "[2]", "[0,1]") + "}", 1))};
  EXPECT_THAT(error_of([&] { file.tensor(file.entries()[0]); }).message(), HasSubstr("`F4`"));
}

}  // namespace
}  // namespace compress::testing
