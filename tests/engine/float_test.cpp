// A plan in float computes what the graph computes.

#include "compress/engine/plan.h"
#include "compress/zoo/zoo.h"
#include "tests/engine/networks.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <gmock/gmock.h>

#include <algorithm>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The largest difference as a share of the largest element.
double difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a - b).abs().max().item<double>() / std::max(1e-12, b.abs().max().item<double>());
}

double error_of(const Model& model, const at::Tensor& x, const PlanOptions& options = {}) {
  const at::NoGradGuard no_grad;
  Plan made = plan(model, {x}, options);
  const at::Tensor expected = model.forward({x})[0];
  const double first = difference(made.run({x})[0], expected);
  // The arena holds what the first run has left there.
  EXPECT_EQ(difference(made.run({x})[0], expected), first);
  return first;
}

constexpr double kRounding = 1e-5;

TEST(EngineFloat, RunsResNet20WithBothShortcuts) {
  for (const char* name : {"resnet20-cifar10", "resnet20b-cifar10"}) {
    Model model = zoo::build(name);
    unsettle_batch_norms(model);
    model.eval();
    EXPECT_LE(error_of(model, at::randn({3, 3, 32, 32})), kRounding) << name;
  }
}

TEST(EngineFloat, LeavesOneStepALayerOfAResNet) {
  Model model = zoo::build("resnet20-cifar10");
  const std::string text = plan(model, {at::randn({1, 3, 32, 32})}).text();
  EXPECT_THAT(text, Not(HasSubstr("libtorch"))) << text;
  EXPECT_THAT(text, Not(HasSubstr("batch_norm"))) << text;
  // 19 convolutions, 2 shortcuts, the average, the linear layer, and the input in another order.
  EXPECT_THAT(text, HasSubstr("24 steps")) << text;
}

TEST(EngineFloat, RunsPoolingAndFlatten) {
  const Model model = network({3, 13, 13}, [](GraphBuilder& net, Value* x) {
    x = net.max_pool(net.relu(net.conv(x, "a", 3, 8, {.padding = 1, .bias = true})), 3, 2, 1);
    x = net.avg_pool(net.conv(x, "b", 8, 12, {.kernel = 2, .groups = 4, .bias = true}), 2);
    return net.linear(net.flatten(x), "c", 12 * 3 * 3, 5);
  });
  EXPECT_LE(error_of(model, at::randn({4, 3, 13, 13})), kRounding);
}

TEST(EngineFloat, KeepsAValueThatIsReadAfterTheSum) {
  const Model model = network({8, 6, 6}, [](GraphBuilder& net, Value* x) {
    Value* y = net.relu(net.conv(x, "a", 8, 8, {.padding = 1}));
    Value* z = net.add(net.conv(y, "b", 8, 8, {.padding = 1}), y);  // y is read again
    return net.add(net.conv(z, "c", 8, 8, {.padding = 1}), y);
  });
  EXPECT_LE(error_of(model, at::randn({2, 8, 6, 6})), kRounding);
}

TEST(EngineFloat, AddsALayerToItsOwnInput) {
  const Model model = network({8, 6, 6}, [](GraphBuilder& net, Value* x) {
    Value* y = net.relu(net.conv(x, "a", 8, 8, {.padding = 1}));
    return net.relu(net.add(net.conv(y, "b", 8, 8, {.padding = 1}), y));
  });
  EXPECT_LE(error_of(model, at::randn({2, 8, 6, 6})), kRounding);
}

TEST(EngineFloat, RunsWhatOneDnnLacksThroughLibTorch) {
  const Model model = network({4, 6, 6}, [](GraphBuilder& net, Value* x) {
    x = net.conv(x, "a", 4, 4, {.padding = 1});
    x = net.call("aten::roll", {x, std::vector<int64_t>{1}, std::vector<int64_t>{2}});
    return net.conv(net.call("aten::sin", {x}), "b", 4, 2, {});
  });
  const at::Tensor x = at::randn({2, 4, 6, 6});
  EXPECT_LE(error_of(model, x), kRounding);
  EXPECT_THAT(plan(model, {x}).text(), HasSubstr("roll sin"));
}

TEST(EngineFloat, ViewsImagesThatLieInAnotherOrder) {
  const Model model = network({4, 6, 6}, [](GraphBuilder& net, Value* x) {
    x = net.conv(x, "a", 4, 4, {.padding = 1});
    // A view of the same memory in eager mode, a copy of what lies channels last in the plan.
    x = net.call("aten::sin", {net.call("aten::view", {x, std::vector<int64_t>{-1, 2, 2, 36}})});
    return net.call("aten::view", {net.call("aten::transpose.int", {x, 1, 2}),
                                   std::vector<int64_t>{-1, 2, 2, 6, 6}});
  });
  EXPECT_LE(error_of(model, at::randn({2, 4, 6, 6})), kRounding);
}

TEST(EngineFloat, RunsActivations) {
  for (const char* op : {"aten::relu", "aten::gelu", "aten::silu", "aten::hardswish",
                         "aten::sigmoid", "aten::tanh", "aten::elu", "aten::leaky_relu"}) {
    const Model model = network({8}, [&](GraphBuilder& net, Value* x) {
      return net.linear(net.call(op, {net.linear(x, "a", 8, 16)}), "b", 16, 4);
    });
    EXPECT_LE(error_of(model, 3 * at::randn({5, 8})), 1e-4) << op;  // oneDNN's erf and exp
  }
}

TEST(EngineFloat, RunsATransformerLayer) {
  const Model model = network({6, 32}, [](GraphBuilder& net, Value* x) {
    Value* query = net.linear(x, "query", 32, 32);
    Value* key = net.linear(x, "key", 32, 32);
    Value* value = net.linear(x, "value", 32, 32);
    Value* y = net.attention(query, key, value, 32, 4, /*causal=*/false);
    x = net.layer_norm(net.add(net.linear(y, "out", 32, 32), x), "norm", 32, 1e-12);
    y = net.linear(net.call("aten::gelu", {net.linear(x, "up", 32, 64)}), "down", 64, 32);
    return net.layer_norm(net.add(y, x), "norm2", 32, 1e-12);
  });
  EXPECT_LE(error_of(model, at::randn({3, 6, 32})), 2e-5);
}

TEST(EngineFloat, StaysNearInBfloat16) {
  Model model = zoo::build("resnet20-cifar10");
  unsettle_batch_norms(model);
  model.eval();
  const at::Tensor x = at::randn({3, 3, 32, 32});
  if (!has_bfloat16_kernels()) {
    EXPECT_THAT(message_of([&] { plan(model, {x}, {.precision = EnginePrecision::kBfloat16}); }),
                HasSubstr("no bfloat16 kernels for this processor"));
    return;
  }
  const double error = error_of(model, x, {.precision = EnginePrecision::kBfloat16});
  EXPECT_LE(error, 2e-2);
  EXPECT_GT(error, 1e-6);  // it did compute in bfloat16
}

TEST(EngineFloat, MultipliesPackedWeightsOfFourBits) {
  if (!has_bfloat16_kernels()) GTEST_SKIP() << "no bfloat16 kernels for this processor";
  for (const char* how : {"grid=symmetric,granularity=group:32", "grid=affine,granularity=group:64",
                          "grid=affine,granularity=channel"}) {
    Model model = network({1, 64}, [](GraphBuilder& net, Value* x) {
      return net.linear(net.call("aten::gelu", {net.linear(x, "a", 64, 128)}), "b", 128, 48);
    });
    run_pass(std::string("quantize.weights{bits=4,") + how + "}", model);
    const PlanOptions bfloat16{.precision = EnginePrecision::kBfloat16};
    const at::Tensor x = at::randn({8, 1, 64});
    EXPECT_LE(error_of(model, x, bfloat16), 2e-2) << how;
    EXPECT_THAT(plan(model, {x}, bfloat16).text(), HasSubstr("int4pack")) << how;
    // With more rows, and in float, decoded weights are faster.
    EXPECT_THAT(plan(model, {at::randn({16, 1, 64})}, bfloat16).text(), Not(HasSubstr("int4pack")));
    EXPECT_THAT(plan(model, {x}).text(), Not(HasSubstr("int4pack")));
  }
}

TEST(EngineFloat, DecodesWeightsOfFourBitsThatLibtorchCannotPack) {
  if (!has_bfloat16_kernels()) GTEST_SKIP() << "no bfloat16 kernels for this processor";
  Model model = network({1, 64}, [](GraphBuilder& net, Value* x) {
    return net.linear(x, "head", 64, 65);  // no multiple of 16 outputs
  });
  run_pass("quantize.weights{bits=4,granularity=group:32}", model);
  const at::Tensor x = at::randn({2, 1, 64});
  EXPECT_LE(error_of(model, x, {.precision = EnginePrecision::kBfloat16}), 2e-2);
}

// While one layer's chain is open, another is lowered that would sum into what the first reads.
TEST(EngineFloat, KeepsWhatALayerWillRead) {
  const Model model = parse_filled(R"(
input x : f32[2,4,6,6]
parameter a.weight : f32[4,4,3,3]
parameter b.weight : f32[4,4,3,3]
parameter c.weight : f32[4,4,3,3]
a = aten::conv2d(x, a.weight, none, [1, 1], [1, 1]) : f32[2,4,6,6]
c = aten::conv2d(x, c.weight, none, [1, 1], [1, 1]) : f32[2,4,6,6]
b = aten::conv2d(c, b.weight, none, [1, 1], [1, 1]) : f32[2,4,6,6]
inner = aten::add.Tensor(b, x) : f32[2,4,6,6]
outer = aten::add.Tensor(a, inner) : f32[2,4,6,6]
return y = outer
)");
  EXPECT_LE(error_of(model, at::randn({2, 4, 6, 6})), kRounding);
}

// What no kernel does runs through LibTorch.
TEST(EngineFloat, LeavesToLibtorchWhatNoKernelDoes) {
  for (const char* call : {
           "aten::batch_norm(a, none, none, none, none, true, 0.1, 0.00001, true)",
           "aten::layer_norm(a, [6])",
           "aten::clamp(a, 2, 1)",
           "aten::softmax.int(a, -1, 7)",
       }) {
    SCOPED_TRACE(call);
    const Model model = parse_filled(std::string(R"(
input x : f32[2,4,6,6]
parameter a.weight : f32[4,4,3,3]
a = aten::conv2d(x, a.weight, none, [1, 1], [1, 1]) : f32[2,4,6,6]
b = )") + call + "\nc = aten::_to_copy(b, dtype=f32) : f32[2,4,6,6]\nreturn y = c\n");
    EXPECT_LE(error_of(model, at::randn({2, 4, 6, 6})), kRounding);
  }
  const Model many = parse_filled(R"(
input x : f32[2,1,3,2,2,8]
a = aten::layer_norm(x, [8]) : f32[2,1,3,2,2,8]
return y = a
)");
  EXPECT_LE(error_of(many, at::randn({2, 1, 3, 2, 2, 8})), kRounding);
}

TEST(EngineFloat, RunsAGraphInBfloat16) {
  Model model = network({3, 8, 8}, [](GraphBuilder& net, Value* x) {
    return net.relu(net.conv(x, "a", 3, 8, {.padding = 1}));
  });
  model.set_tensor("a.weight", model.tensor("a.weight").to(at::kBFloat16));
  for (Value* input : model.graph().inputs()) input->type.dtype = at::kBFloat16;
  EXPECT_EQ(error_of(model, at::randn({2, 3, 8, 8}).to(at::kBFloat16)), 0);
}

TEST(EngineFloat, GivesTheSameForAnyNumberOfThreads) {
  const Model model = zoo::build("resnet20-cifar10");
  const at::Tensor x = at::randn({2, 3, 32, 32});
  const at::Tensor one = plan(model, {x}, {.threads = 1}).run({x})[0];
  EXPECT_TRUE(at::equal(plan(model, {x}, {.threads = 2}).run({x})[0], one));
}

TEST(EngineFloat, PlansAnewForOtherSizes) {
  const Model model = zoo::build("resnet20-cifar10");
  PlannedModel planned(model);
  for (const int64_t batch : {3, 1, 3}) {
    const at::Tensor x = at::randn({batch, 3, 32, 32});
    EXPECT_LE(difference(planned.run({x})[0], model.forward({x})[0].detach()), kRounding);
  }
}

TEST(EngineFloat, PlansAnewForOtherDtypes) {
  const Model model = network({3, 8, 8}, [](GraphBuilder& net, Value* x) { return net.relu(x); });
  PlannedModel planned(model);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kFloat}) {
    const at::Tensor x = at::randn({2, 3, 8, 8}).to(dtype);
    EXPECT_TRUE(at::equal(planned.run({x})[0], x.relu())) << dtype;
  }
}

TEST(EngineFloat, RefusesOtherSizes) {
  Plan made = plan(zoo::build("resnet20-cifar10"), {at::zeros({1, 3, 32, 32})});
  EXPECT_THAT(message_of([&] {
                made.run({at::zeros({2, 3, 32, 32})});
              }),
              HasSubstr("f32[2,3,32,32] on cpu, the plan was made for f32[1,3,32,32]"));
  EXPECT_THAT(message_of([&] { made.run({}); }), HasSubstr("takes 1 inputs, 0 were given"));
}

}  // namespace
}  // namespace compress::testing
