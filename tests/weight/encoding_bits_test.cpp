// Tests of compress/encoding_bits.

#include "compress/encoding_bits.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

namespace compress {
namespace {

TEST(PackCodes, PutsTheFirstCodeInTheLowBits) {
  const at::Tensor codes = at::tensor({1, 2, 3}).to(at::kByte).view({1, 3});
  EXPECT_TRUE(
      at::equal(pack_codes(codes, 4)[0], at::tensor({0x21, 0x03}).to(at::kByte).view({1, 2})));
  EXPECT_TRUE(
      at::equal(pack_codes(codes, 2)[0], at::tensor({0b111001}).to(at::kByte).view({1, 1})));
}

TEST(PackCodes, SplitsThreeBitsIntoTwoAndOne) {
  const auto fields = pack_codes(at::tensor({5, 2, 7}).to(at::kByte).view({1, 3}), 3);
  ASSERT_EQ(fields.size(), 2u);
  EXPECT_EQ(fields[0].item<int>(), 0b111001);  // low bits 1, 2, 3
  EXPECT_EQ(fields[1].item<int>(), 0b101);     // high bits 1, 0, 1
}

TEST(PackCodes, UnpacksToTheSameCodesForEveryWidth) {
  at::manual_seed(1);
  for (int bits = 1; bits <= 8; ++bits) {
    for (int64_t columns : {1, 2, 7, 8, 9, 64, 131}) {
      const at::Tensor codes = at::randint(0, 1 << bits, {3, columns}, at::kByte);
      int64_t stored = 0;
      const auto fields = pack_codes(codes, bits);
      for (const at::Tensor& field : fields) stored += field.numel();
      EXPECT_TRUE(at::equal(unpack_codes(fields, bits, columns), codes)) << bits;
      EXPECT_LE(stored * 8, 3 * (columns * bits + 8 * 3));  // no more than padding of each field
    }
  }
}

TEST(PackRow, EqualsTheReference) {
  at::manual_seed(2);
  for (int width : {1, 2, 4, 8}) {
    for (int64_t columns : {1, 15, 16, 17, 64, 1001}) {
      for (int shift = 0; shift + width <= 8; ++shift) {
        const at::Tensor codes = at::randint(0, 256, {columns}, at::kByte);
        at::Tensor fast = at::full({packed_bytes(columns, width)}, 255, at::kByte),
                   slow = fast.clone();
        const auto* in = codes.const_data_ptr<uint8_t>();
        pack_row(in, columns, shift, width, fast.mutable_data_ptr<uint8_t>());
        pack_row_reference(in, columns, shift, width, slow.mutable_data_ptr<uint8_t>());
        EXPECT_TRUE(at::equal(fast, slow)) << width << ' ' << columns << ' ' << shift;
      }
    }
  }
}

}  // namespace
}  // namespace compress
