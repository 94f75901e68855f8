// A plan on integers computes what fake quantization computes, up to the last step of a grid.

#include "compress/engine/plan.h"
#include "compress/zoo/zoo.h"
#include "tests/engine/networks.h"
#include "tests/support/pass_fixture.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Both round the same sums, which differ in the last bits of a float: only a value that lies half
// way between two codes can go either way. Inputs are codes already (`on_grid`), since one of those
// that goes the other way is seen by a hundred outputs.
constexpr double kShareOfTies = 1e-3;

at::Tensor on_grid(const std::vector<int64_t>& sizes, double step, double spread = 1) {
  return (at::randn(sizes) * spread / step).round() * step;
}

struct Held {
  double largest = 0;  // difference, in steps of the output's grid
  double share = 0;    // of elements that differ by more than a hundredth of a step
  std::string text;
};

Held hold_against_fake_quantization(const Model& model, const at::Tensor& x, double step) {
  const at::NoGradGuard no_grad;
  Plan made = plan(model, {x});
  const at::Tensor off = (made.run({x})[0] - model.forward({x})[0]).abs() / step;
  return {off.max().item<double>(), off.gt(0.01).to(at::kDouble).mean().item<double>(),
          made.text()};
}

Value* quantizer(GraphBuilder& net, Value* x, double scale, int64_t zero_point, int64_t low = 0,
                 int64_t high = 255) {
  return net.call("aten::fake_quantize_per_tensor_affine", {x, scale, zero_point, low, high});
}

Model with_codes(Model model, const char* bits = "8") {
  run_pass(std::string("quantize.weights{granularity=channel,bits=") + bits + "}", model);
  return model;
}

TEST(EngineInteger, ConvolvesCodesOfImagesThatAreNotAboveZero) {
  const Model model = with_codes(network({3, 9, 9}, [](GraphBuilder& net, Value* x) {
    x = quantizer(net, x, 0.02, 113);  // zero is code 113, in the padding too
    return net.conv(x, "a", 3, 16, {.stride = 2, .padding = 1, .bias = true});
  }));
  const Held held = hold_against_fake_quantization(model, on_grid({2, 3, 9, 9}, 0.02), 1);
  EXPECT_LE(held.largest, 1e-5) << held.text;  // nothing is rounded behind it
  if (has_wide_integer_sums()) {
    EXPECT_THAT(held.text, HasSubstr("int8"));
  } else {
    EXPECT_THAT(held.text, HasSubstr("1 layers of eight-bit codes compute in float"));
  }
}

TEST(EngineInteger, RoundsTheOutputOfALayerOnce) {
  for (const char* bits : {"8", "4"}) {
    const Model model = with_codes(
        network({8, 10, 10},
                [](GraphBuilder& net, Value* x) {
                  x = quantizer(net, x, 0.02, 128);
                  x = net.relu(net.conv(x, "a", 8, 24, {.padding = 1, .groups = 2, .bias = true}));
                  return quantizer(net, x, 0.01, 0);
                }),
        bits);
    const Held held = hold_against_fake_quantization(model, on_grid({3, 8, 10, 10}, 0.02), 0.01);
    EXPECT_LE(held.largest, 1.001) << held.text;
    EXPECT_LE(held.share, kShareOfTies);
  }
}

TEST(EngineInteger, ClipsToGridsOfFewerBits) {
  const Model model = with_codes(network({8, 10, 10}, [](GraphBuilder& net, Value* x) {
    x = quantizer(net, x, 0.5, 7, 0, 15);
    x = quantizer(net, net.conv(x, "a", 8, 16, {.padding = 1}), 0.2, -1, -8, 7);
    return quantizer(net, net.relu(net.conv(x, "b", 16, 8, {.padding = 1})), 0.2, 2, 0, 15);
  }));
  const Held held = hold_against_fake_quantization(model, on_grid({3, 8, 10, 10}, 0.5, 4), 0.2);
  EXPECT_LE(held.share, kShareOfTies) << held.text;
  EXPECT_LE(held.largest, 1.001);
}

TEST(EngineInteger, RoundsBeforeAndAfterASum) {
  const Model model = with_codes(network({16, 8, 8}, [](GraphBuilder& net, Value* x) {
    x = quantizer(net, net.relu(x), 0.013, 0);
    Value* y = quantizer(net, net.relu(net.conv(x, "a", 16, 16, {.padding = 1})), 0.01, 0);
    y = quantizer(net, net.conv(y, "b", 16, 16, {.padding = 1, .bias = true}), 0.011, 120);
    return quantizer(net, net.relu(net.add(y, x)), 0.017, 0);
  }));
  const Held held = hold_against_fake_quantization(model, on_grid({3, 16, 8, 8}, 0.013), 0.017);
  EXPECT_LE(held.largest, 1.001) << held.text;
  EXPECT_LE(held.share, 2 * kShareOfTies) << held.text;
  if (has_wide_integer_sums()) {
    EXPECT_THAT(held.text, HasSubstr("clip round sum")) << held.text;
  }
}

TEST(EngineInteger, AddsTwoBranchesOfDifferentGrids) {
  const Model model = with_codes(network({8, 8, 8}, [](GraphBuilder& net, Value* x) {
    x = quantizer(net, x, 0.02, 128);
    Value* a = quantizer(net, net.conv(x, "a", 8, 16, {.stride = 2, .padding = 1}), 0.0117, 100);
    Value* b =
        quantizer(net, net.conv(x, "b", 8, 16, {.kernel = 1, .stride = 2}), 0.0091, -3, -128, 127);
    // No sum of their steps lies half way between two of this one's.
    return quantizer(net, net.relu(net.add(a, b)), 0.01023, 0);
  }));
  const Held held = hold_against_fake_quantization(model, on_grid({3, 8, 8, 8}, 0.02), 0.01023);
  EXPECT_LE(held.share, 2 * kShareOfTies) << held.text;
}

TEST(EngineInteger, MultipliesMatricesOfCodes) {
  const Model model = with_codes(network({5, 32}, [](GraphBuilder& net, Value* x) {
    x = quantizer(net, x, 0.02, 128);
    x = quantizer(net, net.call("aten::gelu", {net.linear(x, "a", 32, 64)}), 0.01, 20);
    return net.linear(x, "b", 64, 16);
  }));
  const Held held = hold_against_fake_quantization(model, on_grid({4, 5, 32}, 0.02), 0.01);
  EXPECT_LE(held.largest, 1) << held.text;
  EXPECT_LE(held.share, 0.05) << held.text;  // each output sees 64 codes
}

TEST(EngineInteger, LeavesLayersWithoutCodesInFloat) {
  const Model model = network({8, 6, 6}, [](GraphBuilder& net, Value* x) {
    x = quantizer(net, x, 0.02, 128);
    return net.conv(x, "a", 8, 8, {.padding = 1});
  });
  const Held held = hold_against_fake_quantization(model, on_grid({2, 8, 6, 6}, 0.02), 1);
  EXPECT_LE(held.largest, 1e-5) << held.text;
}

TEST(EngineInteger, KeepsResNet20OnIntegersFromEndToEnd) {
  for (const char* name : {"resnet20-cifar10", "resnet20b-cifar10"}) {
    Model model = zoo::build(name);
    unsettle_batch_norms(model);
    model.eval();
    const at::Tensor x = at::randn({16, 3, 32, 32});
    quantize(model, x);
    const at::NoGradGuard no_grad;
    Plan made = plan(model, {x});
    const at::Tensor ours = made.run({x})[0], expected = model.forward({x})[0];
    const double spread = (expected.max() - expected.min()).item<double>();
    EXPECT_LE((ours - expected).abs().max().item<double>(), 0.02 * spread) << made.text();
    EXPECT_THAT(made.text(), Not(HasSubstr("libtorch"))) << made.text();
    if (!has_wide_integer_sums()) continue;
    // Only the input, its average over pixels and the logits are floats.
    EXPECT_THAT(made.text(), Not(HasSubstr("f32[16,16"))) << made.text();
    EXPECT_THAT(made.text(), Not(HasSubstr("f32[16,32"))) << made.text();
  }
}

}  // namespace
}  // namespace compress::testing
