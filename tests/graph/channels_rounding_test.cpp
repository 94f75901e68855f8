// Coupled channels behind fake quantization, whose steps go with the channels.

#include "compress/graph/channels.h"
#include "compress/graph/compact.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <string>

namespace compress::testing {
namespace {

TEST(Channels, TakeTheirStepsAlong) {
  for (const bool learned : {false, true}) {
    SCOPED_TRACE(learned ? "learned" : "fixed");
    Model model = parse_filled(std::string(R"(
      input x : f32[batch,4]
      parameter a.weight : f32[6,4]
      buffer step : f32[6]
      buffer zero : )") + (learned ? "f32" : "i32") +
                               R"([6]
      parameter b.weight : f32[3,6]
      rounded = aten::)" +
                               (learned ? "_fake_quantize_learnable_per_channel_affine"
                                        : "fake_quantize_per_channel_affine") +
                               R"((a.weight, step, zero, 0, -128, 127)
      a = aten::linear(x, rounded)
      u = aten::fake_quantize_per_tensor_affine(a, 0.01, 3, -128, 127)
      b = aten::linear(u, b.weight)
      return output = b
    )");
    model.set_tensor("step", at::rand({6}).mul(0.01).add(0.001));
    model.set_tensor("zero", at::zeros({6}, learned ? at::kFloat : at::kInt));
    const at::Tensor x = at::randn({5, 4});
    const ChannelGroups groups = analyse(model);
    ASSERT_EQ(groups.groups().size(), 1);
    ASSERT_EQ(groups.groups()[0].units.size(), 6);
    ChannelSet set = groups.none();
    for (const size_t unit : {1, 4}) groups.add(set, groups.groups()[0].units[unit]);

    // A step of zero would divide by zero: what the layer behind does not see is as good as gone.
    Model blind = model.clone(true);
    blind.tensor("b.weight").detach().index_fill_(1, at::tensor({1, 4}, at::kLong), 0);
    const at::Tensor expected = blind.forward({x})[0];
    EXPECT_FALSE(at::allclose(expected, model.forward({x})[0]));
    remove(model, groups, set);
    EXPECT_EQ(model.tensor("step").numel(), 4);
    EXPECT_EQ(model.tensor("zero").numel(), 4);
    EXPECT_TRUE(at::allclose(model.forward({x})[0], expected, 1e-5, 1e-6));
  }
}

}  // namespace
}  // namespace compress::testing
