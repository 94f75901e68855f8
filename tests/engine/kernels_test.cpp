// Our own kernels against LibTorch's operators.

#include "compress/engine/kernels.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

namespace compress::engine {
namespace {

Slot slot_of(const at::Tensor& tensor, std::optional<Grid> grid = std::nullopt) {
  return {"x", tensor.sizes().vec(), tensor.scalar_type(), tensor.dim() == 4, grid, 0};
}

at::Tensor channels_last(const at::Tensor& tensor) {
  return tensor.contiguous(at::MemoryFormat::ChannelsLast);
}

TEST(GlobalAverage, OfCodesIsTheMeanOfWhatTheyStandFor) {
  const at::Tensor codes = channels_last(at::randint(0, 256, {3, 17, 5, 7}, at::kByte));
  const Grid grid{0.03, 111, 0, 255};
  at::Tensor out = at::empty({3, 17});
  Slot to = slot_of(out);
  global_average(slot_of(codes, grid), codes.data_ptr(), to, out.data_ptr());
  const at::Tensor expected = ((codes.to(at::kDouble) - 111) * 0.03).mean({2, 3});
  EXPECT_LE((out.to(at::kDouble) - expected).abs().max().item<double>(), 1e-6);
}

TEST(GlobalAverage, OfFloats) {
  const at::Tensor x = channels_last(at::randn({2, 5, 8, 8}));
  at::Tensor out = at::empty({2, 5});
  global_average(slot_of(x), x.data_ptr(), slot_of(out), out.data_ptr());
  EXPECT_TRUE(at::allclose(out, x.mean({2, 3}), 1e-5, 1e-6));
}

TEST(Crop, SkipsAndPadsAsSliceAndPadDo) {
  for (const at::ScalarType dtype : {at::kFloat, at::kByte}) {
    const at::Tensor x = channels_last(at::randint(0, 200, {2, 6, 9, 8}).to(dtype));
    const at::Tensor part = x.slice(1, 1, 5).slice(2, 1, 9, 2).slice(3, 0, 8, 3);
    const at::Tensor expected = at::constant_pad_nd(part, {1, 2, 0, 1, 3, 2}, 0);
    at::Tensor out = channels_last(at::full(expected.sizes(), 77, dtype));
    const Crop how{{1, 1, 4, 3}, {1, 2, 4, 0}, {0, 3, 3, 1}};
    crop(how, slot_of(x), x.data_ptr(), slot_of(out), out.data_ptr());
    EXPECT_TRUE(at::equal(out, expected)) << dtype;
  }
}

TEST(Crop, PadsCodesWithTheCodeOfZero) {
  const at::Tensor x = channels_last(at::full({1, 1, 1, 1}, 9, at::kByte));
  at::Tensor out = channels_last(at::zeros({1, 3, 1, 1}, at::kByte));
  const Grid grid{0.1, 42, 0, 255};
  crop({{0, 1, 1, 1}, {0, 1, 1, 0}, {0, 1, 1, 0}}, slot_of(x, grid), x.data_ptr(),
       slot_of(out, grid), out.data_ptr());
  EXPECT_EQ(out.flatten()[0].item<int>(), 42);
  EXPECT_EQ(out.flatten()[1].item<int>(), 9);
  EXPECT_EQ(out.flatten()[2].item<int>(), 42);
}

}  // namespace
}  // namespace compress::engine
