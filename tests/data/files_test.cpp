// Tensors from .npy and .safetensors, tokens from text; hostile .npy files are refused.

#include "compress/data/npy.h"
#include "compress/data/tensors.h"
#include "compress/data/text.h"
#include "compress/error.h"
#include "compress/io/safetensors.h"
#include "tests/support/errors.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using namespace std::string_literals;

// A version 1 file with this dictionary.
std::string npy(std::string header, const std::string& data) {
  while ((header.size() + 11) % 64 != 0) header += ' ';
  header += '\n';
  return "\x93NUMPY\x01\0"s + static_cast<char>(header.size() & 0xff) +
         static_cast<char>(header.size() >> 8) + header + data;
}

at::Tensor read(const std::string& bytes) {
  return read_npy(MappedFile::from_bytes(bytes, "x.npy"));
}

const std::string kHeader = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }";
const std::string kData = "\1\0\2\0\3\0\4\0\5\0\6\0"s;

TEST(Npy, ReadsWhatNumpyWrites) {
  const at::Tensor tensor = read(npy(kHeader, kData));
  EXPECT_TRUE(tensor.equal(at::tensor({1, 2, 3, 4, 5, 6}, at::kShort).view({2, 3})));
  // Bytes of numpy.save(x, numpy.float32(1.5)), and of an empty array.
  EXPECT_EQ(read(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "\0\0\xc0\x3f"s))
                .item<float>(),
            1.5f);
  EXPECT_THAT(
      read(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 4), }", "")).sizes().vec(),
      ElementsAre(0, 4));
}

TEST(Npy, ReadsFortranOrderAndAnUnalignedHeader) {
  const std::string header = "{'shape':(2,3),'fortran_order':True,'descr':\"<i2\"}";
  const at::Tensor expected = at::tensor({1, 3, 5, 2, 4, 6}, at::kShort).view({2, 3});
  EXPECT_TRUE(read(npy(header, kData)).equal(expected));
  std::string odd = "\x93NUMPY\x02\0"s + static_cast<char>(header.size()) + "\0\0\0"s + header;
  EXPECT_TRUE(read(odd + kData).equal(expected));
}

TEST(Npy, RefusesWhatIsNotSound) {
  const std::vector<std::string> headers = {
      "",
      "{",
      "{'descr': '<i2', 'fortran_order': False}",
      "{'descr': '<i2', 'descr': '<i2', 'fortran_order': False, 'shape': (2, 3)}",
      "{'descr': '<i2', 'fortran_order': 0, 'shape': (2, 3)}",
      "{'descr': '<i2', 'fortran_order': False, 'shape': (2, -3)}",
      "{'descr': '<i2', 'fortran_order': False, 'shape': 6}",
      "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3)} x",
      "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3, 99999999999999999999999)}",
      "{'descr': '<i2', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296)}",
      "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 4)}",
      "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 2)}",
      "{'descr': '>i2', 'fortran_order': False, 'shape': (2, 3)}",
      "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}",
      "{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (6,)}",
      "{'descr': '<i2, 'fortran_order': False, 'shape': (2, 3)}",
      "{'descr': __import__('os'), 'fortran_order': False, 'shape': (2, 3)}",
  };
  for (const std::string& header : headers) {
    EXPECT_THROW(read(npy(header, kData)), Error) << header;
  }
  // Of no elements, and strides beyond 64 bits all the same.
  const std::string huge = "(0, 4294967296, 4294967296, 4294967296)";
  EXPECT_THROW(read(npy("{'descr': '|u1', 'fortran_order': False, 'shape': " + huge + "}", "")),
               Error);
  const std::string whole = npy(kHeader, kData);
  for (size_t size = 1; size < whole.size(); ++size) {
    EXPECT_THROW(read(whole.substr(0, size)), Error) << size;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x15);
    try {
      EXPECT_LE(read(damaged).nbytes(), kData.size());
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("x.npy"));
    }
  }
  EXPECT_THAT(message_of([] { read(npy("{'descr': '<i2', 'shape': [2]}", "")); }),
              HasSubstr("x.npy: byte 36: not a sound .npy header: expected `(`"));
}

TEST(TensorFile, GivesInputsAndLabelsByName) {
  const testing::ScratchDir scratch;
  const at::Tensor x = at::arange(12, at::kFloat).view({4, 3});
  const at::Tensor mask = at::ones({4, 2}, at::kBool);
  const at::Tensor y = at::tensor({2, 0, 1, 2}, at::kInt);
  save_safetensors(scratch / "d.safetensors", {{"inputs", x}, {"mask", mask}, {"labels", y}});
  const auto data = tensor_file(scratch / "d.safetensors", {.inputs = {"inputs", "mask"}});
  EXPECT_EQ(data->size(), 4);
  EXPECT_EQ(data->info().classes, 3);
  const Batch batch = data->get({3, 1});
  EXPECT_TRUE(batch.inputs[0].equal(x.index({at::tensor({3, 1})})));
  EXPECT_EQ(batch.inputs[1].scalar_type(), at::kBool);
  EXPECT_TRUE(batch.labels.equal(at::tensor({2, 0}, at::kLong)));

  EXPECT_THAT(message_of([&] { tensor_file(scratch / "d.safetensors", {.inputs = {"input"}}); }),
              HasSubstr("did you mean `inputs`?"));
  EXPECT_THAT(message_of([&] { tensor_file(scratch / "d.safetensors", {.labels = "y"}); }),
              HasSubstr("`y`, which `labels` names, is not in the file"));
  EXPECT_THROW(tensor_file(scratch / "absent.safetensors", {}), Error);
  EXPECT_THROW(tensor_file(scratch / "d.txt", {}), Error);
}

TEST(TensorFile, NormalizesBytes) {
  const testing::ScratchDir scratch;
  const at::Tensor x = at::arange(24, at::kByte).view({2, 3, 2, 2});
  save_safetensors(scratch / "d.safetensors", {{"inputs", x}, {"x", x.to(at::kFloat)}});
  const auto data = tensor_file(scratch / "d.safetensors", {.normalize = normalization("none")});
  EXPECT_TRUE(data->get({0, 1}).inputs[0].equal(x.to(at::kFloat).div(255.0)));
  EXPECT_FALSE(data->info().labeled);
  EXPECT_THAT(message_of([&] {
                tensor_file(scratch / "d.safetensors",
                            {.inputs = {"x"}, .normalize = normalization("none")});
              }),
              HasSubstr("expected one uint8 [n, c, h, w]"));
}

TEST(TensorFile, RefusesLabelsOfAnotherNumber) {
  EXPECT_THROW(tensor_dataset({at::ones({4, 2})}, at::ones({3}, at::kLong), "x"), Error);
  EXPECT_THROW(tensor_dataset({at::ones({4, 2}), at::ones({3, 2})}, {}, "x"), Error);
  EXPECT_THROW(tensor_dataset({at::ones({0, 2})}, {}, "x"), Error);
  EXPECT_THROW(tensor_dataset({at::ones({2, 2})}, at::tensor({-1, 0}, at::kLong), "x"), Error);
}

TEST(TensorFile, ReadsNpyPairs) {
  const testing::ScratchDir scratch;
  std::ofstream(scratch / "x.npy", std::ios::binary) << npy(kHeader, kData);
  std::ofstream(scratch / "y.npy", std::ios::binary)
      << npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }", "\5\7");
  const auto data = tensor_file(scratch / "x.npy", {.labels = "y.npy"});
  EXPECT_TRUE(data->get({1}).inputs[0].equal(at::tensor({4, 5, 6}, at::kShort).view({1, 3})));
  EXPECT_EQ(data->get({1}).labels.item<int64_t>(), 7);
}

class Text : public ::testing::Test {
 protected:
  std::filesystem::path file(const std::string& text) {
    std::ofstream(scratch_ / "a.txt", std::ios::binary) << text;
    return scratch_ / "a.txt";
  }
  testing::ScratchDir scratch_;
};

TEST_F(Text, NumbersCharactersInTheOrderOfCodePoints) {
  const auto data = text_dataset(file("b\xc3\xa4"
                                      "a\xe2\x82\xac"
                                      "b"),
                                 {.length = 2});
  EXPECT_THAT(data->info().class_names, ElementsAre("a", "b", "\xc3\xa4", "\xe2\x82\xac"));
  ASSERT_EQ(data->size(), 2);
  EXPECT_TRUE(data->get({0, 1}).inputs[0].equal(at::tensor({1, 2, 0, 3}, at::kLong).view({2, 2})));
  EXPECT_TRUE(data->get({0, 1}).labels.equal(at::tensor({2, 0, 3, 1}, at::kLong).view({2, 2})));
}

TEST_F(Text, CutsBytesIntoOverlappingWindowsOfAPart) {
  const auto data = text_dataset(
      file("0123456789"),
      {.tokens = TokenKind::kBytes, .length = 2, .stride = 1, .begin = 0.5, .end = 1.0});
  EXPECT_EQ(data->info().classes, 256);
  ASSERT_EQ(data->size(), 3);
  EXPECT_TRUE(data->get({2}).inputs[0].equal(at::tensor({'7', '8'}, at::kLong).view({1, 2})));
  EXPECT_TRUE(data->get({2}).labels.equal(at::tensor({'8', '9'}, at::kLong).view({1, 2})));
}

TEST_F(Text, RefusesWhatIsNotUtf8WithItsPlace) {
  for (const std::string bad : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xe2\x82", "\xf5\x80\x80\x80",
                                "\x80", "\xf4\x90\x80\x80"}) {
    EXPECT_THAT(message_of([&] { text_dataset(file("ab" + bad), {.length = 1}); }),
                HasSubstr("a.txt: byte 2: not UTF-8 (use tokens `bytes` for it)"));
  }
  EXPECT_THAT(message_of([&] { text_dataset(file("ab"), {.length = 2}); }), HasSubstr("2 tokens"));
}

}  // namespace
}  // namespace compress
