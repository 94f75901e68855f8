// Zip archives: our writer against Python's reader's rules, our reader against Python's writer.

#include "compress/io/zip.h"

#include "compress/io/little_endian.h"
#include "tests/io/files.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <caffe2/serialize/inline_container.h>
#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;

void write_sample(const std::filesystem::path& path) {
  ZipWriter zip(path);
  zip.add("m/data/0", std::string(100, 'a'));
  zip.add("m/data/1", std::string());
  zip.add("m/byteorder", "little");
  zip.finish();
}

TEST(ZipWriter, GivesTheSameBytesTwiceWithDataAlignedTo64) {
  const ScratchDir scratch;
  write_sample(scratch / "a.zip");
  write_sample(scratch / "b.zip");
  EXPECT_EQ(read_all(scratch / "a.zip"), read_all(scratch / "b.zip"));
  const ZipReader zip = ZipReader::open(scratch / "a.zip");
  ASSERT_EQ(zip.entries().size(), 3u);
  for (const ZipEntry& entry : zip.entries()) EXPECT_EQ(entry.data_offset % 64, 0u) << entry.name;
  EXPECT_EQ(zip.read(zip.at("m/data/0")), std::string(100, 'a'));
  EXPECT_EQ(zip.read(zip.at("m/data/1")), "");
  EXPECT_EQ(zip.find("m/data/2"), nullptr);
}

TEST(ZipWriter, IsReadByPyTorchsOwnReader) {
  const ScratchDir scratch;
  ZipWriter writer(scratch / "a.zip");
  writer.add("m/data/0", std::string(100, 'a'));
  writer.add("m/byteorder", "little");
  writer.add("m/.data/version", "3\n");
  writer.finish();
  caffe2::serialize::PyTorchStreamReader reader((scratch / "a.zip").string());
  const auto [data, size] = reader.getRecord("byteorder");
  EXPECT_EQ(std::string(static_cast<const char*>(data.get()), size), "little");
  EXPECT_EQ(std::get<1>(reader.getRecord("data/0")), 100u);
}

TEST(ZipWriter, WritesZip64ForManyEntries) {
  const ScratchDir scratch;
  ZipWriter writer(scratch / "many.zip");
  for (int i = 0; i < 70'000; ++i) writer.add("m/" + std::to_string(i), std::string_view("x"));
  writer.finish();
  const ZipReader zip = ZipReader::open(scratch / "many.zip");
  EXPECT_EQ(zip.entries().size(), 70'000u);
  EXPECT_EQ(zip.read(zip.at("m/69999")), "x");
}

TEST(ZipWriter, RefusesNamesThatLeadOutOfTheArchiveOrAreTaken) {
  const ScratchDir scratch;
  ZipWriter zip(scratch / "a.zip");
  zip.add("a", std::string_view("x"));
  for (const std::string name : {"", "/a", "../a", "a/../b", "a/..", "a\\b", "a", "b/"}) {
    EXPECT_EQ(error_of([&] { zip.add(name, std::string_view("x")); }).code(),
              ErrorCode::kInvalidArgument)
        << name;
  }
}

TEST(ZipReader, GivesTensorsInPlace) {
  const ScratchDir scratch;
  const at::Tensor values = at::arange(12, at::kFloat);
  ZipWriter writer(scratch / "a.zip");
  writer.add("w", {static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
  writer.finish();
  const ZipReader zip = ZipReader::open(scratch / "a.zip");
  const ZipEntry& entry = zip.at("w");
  const at::Tensor tensor = zip.tensor(entry, at::kFloat, {3, 4});
  EXPECT_TRUE(at::equal(tensor, values.view({3, 4})));
  EXPECT_EQ(tensor.const_data_ptr(), zip.bytes(entry).data());
  EXPECT_TRUE(at::equal(zip.tensor(entry, at::kFloat, {2}, at::IntArrayRef{4}, 1),
                        at::tensor({1.0f, 5.0f})));
  EXPECT_EQ(error_of([&] { zip.tensor(entry, at::kFloat, {13}); }).code(), ErrorCode::kBadFile);
  EXPECT_EQ(error_of([&] { zip.tensor(entry, at::kFloat, {2}, at::IntArrayRef{11}, 1); }).code(),
            ErrorCode::kBadFile);
}

TEST(ZipReader, InflatesWhatPythonDeflated) {
  const ZipReader zip = ZipReader::open(source_dir() / "tests/golden/io/deflated.zip");
  ASSERT_EQ(zip.entries().size(), 2u);
  EXPECT_EQ(zip.read(zip.at("a")), std::string(1000, 'a'));
  EXPECT_EQ(zip.read(zip.at("folder/b")), "bb");
  EXPECT_TRUE(zip.at("a").deflated);
  EXPECT_EQ(error_of([&] { zip.bytes(zip.at("a")); }).code(), ErrorCode::kUnsupported);
  EXPECT_EQ(zip.tensor(zip.at("a"), at::kByte, {1000}).sum().item<int64_t>(), 97'000);
}

TEST(ZipReader, NoticesAChangedByte) {
  const ScratchDir scratch;
  write_sample(scratch / "a.zip");
  std::string bytes = read_all(scratch / "a.zip");
  bytes[bytes.find("aaaa")] = 'b';
  const ZipReader zip(MappedFile::from_bytes(bytes));
  EXPECT_THAT(error_of([&] { zip.verify(zip.at("m/data/0")); }).message(), HasSubstr("checksum"));
  EXPECT_THAT(error_of([&] { zip.read(zip.at("m/data/0")); }).message(), HasSubstr("checksum"));
  zip.verify(zip.at("m/byteorder"));
}

TEST(ZipReader, RefusesEveryTruncation) {
  const ScratchDir scratch;
  write_sample(scratch / "a.zip");
  const std::string bytes = read_all(scratch / "a.zip");
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto file = MappedFile::from_bytes(bytes.substr(0, size));
    EXPECT_EQ(error_of([&] { ZipReader{file}; }).code(), ErrorCode::kBadFile) << size;
  }
}

struct Damage {
  const char* what;
  void (*apply)(std::string& bytes, size_t directory);
  const char* message;
};

// Edits of the directory entry of the first entry ("m/data/0"), and what the reader must say.
class ZipDamage : public ::testing::TestWithParam<Damage> {};

template <class Number>
void put(std::string& bytes, size_t at, Number value) {
  bytes.replace(at, sizeof(value), reinterpret_cast<const char*>(&value), sizeof(value));
}

TEST_P(ZipDamage, IsRefusedByName) {
  const ScratchDir scratch;
  write_sample(scratch / "a.zip");
  std::string bytes = read_all(scratch / "a.zip");
  const size_t directory = bytes.find("PK\1\2");
  GetParam().apply(bytes, directory);
  const Error error = error_of([&] { ZipReader{MappedFile::from_bytes(bytes)}; });
  EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Zip, ZipDamage,
    ::testing::Values(
        Damage{"size", [](std::string& b, size_t d) { put<uint32_t>(b, d + 24, 101); },
               "is stored, but claims 101 bytes in 100"},
        Damage{"beyond",
               [](std::string& b, size_t d) {
                 put<uint32_t>(b, d + 20, 1u << 30);
                 put<uint32_t>(b, d + 24, 1u << 30);
               },
               "beyond the archive's"},
        Damage{"bomb",
               [](std::string& b, size_t d) {
                 put<uint16_t>(b, d + 10, 8);
                 put<uint16_t>(b, 8, 8);
                 put<uint32_t>(b, d + 24, 0x7fffffff);
               },
               "claims to inflate 100 bytes"},
        Damage{"encrypted", [](std::string& b, size_t d) { put<uint16_t>(b, d + 8, 1); },
               "is encrypted"},
        Damage{"method", [](std::string& b, size_t d) { put<uint16_t>(b, d + 10, 12); },
               "uses zip method 12"},
        Damage{"header", [](std::string& b, size_t d) { put<uint32_t>(b, d + 42, 1); },
               "no header of `m/data/0` at byte 1"},
        Damage{"outside", [](std::string& b, size_t d) { put<uint32_t>(b, d + 42, 1u << 30); },
               "begins outside of the archive"},
        Damage{"zip64", [](std::string& b, size_t d) { put<uint32_t>(b, d + 42, ~0u); },
               "begins outside of the archive"},
        Damage{"name", [](std::string& b, size_t d) { b.replace(d + 46, 8, "../../up"); },
               "leads out of the archive"},
        Damage{"absolute", [](std::string& b, size_t d) { b.replace(d + 46, 8, "/etc/pwd"); },
               "is absolute"},
        Damage{"other", [](std::string& b, size_t d) { b.replace(d + 46, 8, "m/data/9"); },
               "contradicts the directory"},
        Damage{"twice",
               [](std::string& b, size_t d) {
                 const size_t second = b.find("PK\1\2", d + 4);
                 b.replace(second + 46, 8, "m/data/0");
                 b.replace(second + 42, 4, b.substr(d + 42, 4));
                 b.replace(second + 16, 12, b.substr(d + 16, 12));
               },
               "overlap"},
        Damage{"count",
               [](std::string& b, size_t) {
                 put<uint16_t>(b, b.size() - 12, 60000);
                 put<uint16_t>(b, b.size() - 14, 60000);
               },
               "60000 entries do not fit"},
        Damage{"comment", [](std::string& b, size_t) { b += "junk"; }, "no zip directory"}),
    [](const auto& info) { return std::string(info.param.what); });

}  // namespace
}  // namespace compress::testing
