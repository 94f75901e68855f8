// What an optimizer does beside the numbers of a step: state, replaced tensors, odd gradients.

#include "compress/train/optimizer.h"

#include "compress/error.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const SgdOptions kSgd{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true};
const AdamOptions kAdam{.lr = 0.02, .weight_decay = 0.1};
const AdamWOptions kAdamW{.lr = 0.02};
const std::vector<OptimizerOptions> kAll = {kSgd, kAdam, kAdamW};

at::Tensor random(std::vector<int64_t> sizes, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::empty(sizes).normal_(0, 1, generator);
}

// A parameter with these values, not with this memory.
at::Tensor leaf(const at::Tensor& values) {
  return values.detach().clone().set_requires_grad(true);
}

std::vector<OptimizedParameter> two_parameters() {
  return {{"fc.weight", leaf(random({6, 64}, 1))}, {"fc.bias", leaf(random({64}, 2))}};
}

void set_gradients(const Optimizer& optimizer, uint64_t step) {
  uint64_t seed = 100 * step;
  for (const OptimizedParameter& parameter : optimizer.parameters()) {
    parameter.tensor.mutable_grad() = random(parameter.tensor.sizes().vec(), ++seed);
  }
}

void take_steps(Optimizer& optimizer, uint64_t begin, uint64_t end) {
  for (uint64_t step = begin; step < end; ++step) {
    set_gradients(optimizer, step);
    optimizer.step(1.0 / static_cast<double>(step + 1));
  }
}

std::vector<std::string> keys(const Optimizer& optimizer) {
  std::vector<std::string> keys;
  for (const auto& [key, tensor] : optimizer.state()) keys.push_back(key);
  return keys;
}

TEST(OptimizerState, HasNamesAndIsEmptyAtFirst) {
  Optimizer sgd(kSgd, two_parameters()), plain(SgdOptions{.momentum = 0}, two_parameters()),
      adam(kAdam, two_parameters());
  for (Optimizer* optimizer : {&sgd, &plain, &adam}) {
    EXPECT_THAT(optimizer->state(), IsEmpty());
    EXPECT_THAT(optimizer->moments("fc.bias"), IsEmpty());
    take_steps(*optimizer, 0, 3);
  }
  EXPECT_THAT(keys(sgd), ElementsAre("fc.bias/momentum", "fc.weight/momentum"));
  EXPECT_THAT(keys(plain), IsEmpty());
  EXPECT_THAT(keys(adam),
              ElementsAre("fc.bias/exp_avg", "fc.bias/exp_avg_sq", "fc.bias/step",
                          "fc.weight/exp_avg", "fc.weight/exp_avg_sq", "fc.weight/step"));
  const at::Tensor steps = adam.state().at("fc.bias/step");
  EXPECT_EQ(steps.dim(), 0);
  EXPECT_EQ(steps.scalar_type(), at::kFloat);
  EXPECT_EQ(steps.item<float>(), 3);
  EXPECT_EQ(sgd.moments("fc.weight").size(), 1u);
  ASSERT_EQ(adam.moments("fc.weight").size(), 2u);
  EXPECT_TRUE(adam.moments("fc.weight")[1].equal(adam.state().at("fc.weight/exp_avg_sq")));
  adam.moments("fc.weight")[1].zero_();  // edits in place
  EXPECT_EQ(adam.state().at("fc.weight/exp_avg_sq").abs().sum().item<float>(), 0);
}

TEST(OptimizerState, SavedAndTakenBackGoesOnBitByBit) {
  for (const OptimizerOptions& options : kAll) {
    SCOPED_TRACE(options.name());
    Optimizer straight(options, two_parameters());
    take_steps(straight, 0, 7);
    const std::map<std::string, at::Tensor> state = straight.state();
    std::vector<OptimizedParameter> copies;
    for (const OptimizedParameter& parameter : straight.parameters()) {
      copies.push_back({parameter.name, leaf(parameter.tensor)});
    }
    take_steps(straight, 7, 15);  // the saved state is a copy: these steps leave it alone
    Optimizer resumed(options, copies);
    resumed.load_state(state);
    take_steps(resumed, 7, 15);
    for (size_t i = 0; i < copies.size(); ++i) {
      EXPECT_TRUE(copies[i].tensor.equal(straight.parameters()[i].tensor)) << copies[i].name;
    }
    const auto now = straight.state(), again = resumed.state();
    ASSERT_EQ(keys(straight), keys(resumed));
    for (const auto& [key, tensor] : now) EXPECT_TRUE(tensor.equal(again.at(key))) << key;
    resumed.load_state({});  // as before the first step
    EXPECT_THAT(resumed.state(), IsEmpty());
  }
}

TEST(OptimizerState, ThatDoesNotFitIsRefusedByName) {
  Optimizer adam(kAdam, two_parameters()), sgd(kSgd, two_parameters());
  take_steps(adam, 0, 1);
  take_steps(sgd, 0, 1);
  const auto state = adam.state();
  const auto refuse = [&](const std::function<void(std::map<std::string, at::Tensor>&)>& damage) {
    auto damaged = state;
    damage(damaged);
    const std::string text = testing::message_of([&] { adam.load_state(damaged); });
    EXPECT_EQ(adam.state().size(), 6u);  // and what was there stays
    return text;
  };
  EXPECT_EQ(refuse([](auto& s) { s.erase("fc.bias/exp_avg_sq"); }),
            "fc.bias/exp_avg_sq: the state lacks this entry");
  EXPECT_EQ(refuse([](auto& s) { s["fc.bias/exp_avg"] = at::zeros({63}); }),
            "fc.bias/exp_avg: the state is f32[63], but it should be f32[64] (it was saved for "
            "another model)");
  EXPECT_THAT(refuse([](auto& s) { s["fc.bias/exp_avg"] = at::zeros({64}, at::kDouble); }),
              HasSubstr("the state is f64[64], but it should be f32[64]"));
  EXPECT_THAT(refuse([](auto& s) { s["fc.bias/step"] = at::zeros({1}); }),
              HasSubstr("the state is f32[1], but it should be f32[]"));
  EXPECT_THAT(refuse([](auto& s) { s["fc.bias/step"] = at::Tensor(); }),
              HasSubstr("the state is empty"));
  EXPECT_EQ(refuse([](auto& s) { s["fc.baas/step"] = at::zeros({}); }),
            "fc.baas/step: adam keeps no such state for any parameter (did you mean "
            "`fc.bias/step`?)");
  EXPECT_THAT(testing::message_of([&] { sgd.load_state(state); }),
              HasSubstr("fc.bias/exp_avg: sgd keeps no such state"));
  EXPECT_THAT(testing::message_of([&] { adam.load_state(sgd.state()); }),
              HasSubstr("fc.bias/momentum: adam keeps no such state"));
}

// The rows that stay must not notice that others went: exactly what an optimizer that only ever had
// these rows does. Rows of 64 elements put each into the same lane of the vectorised kernels.
TEST(OptimizerReplace, ASlicedParameterContinuesAsIfItHadAlwaysBeenSmall) {
  const at::Tensor kept = at::tensor(std::vector<int64_t>{0, 2, 5});
  const at::Tensor initial = random({6, 64}, 1);
  for (const OptimizerOptions& options : kAll) {
    SCOPED_TRACE(options.name());
    Optimizer sliced(options, {{"w", leaf(initial), 0.5, 0.02}});
    Optimizer small(options, {{"w", leaf(initial.index_select(0, kept)), 0.5, 0.02}});
    for (uint64_t step = 0; step < 12; ++step) {
      const at::Tensor gradient = random({6, 64}, 100 + step);
      if (step == 5) {
        const at::Tensor rows = sliced.parameters()[0].tensor.detach().index_select(0, kept);
        sliced.replace("w", rows, [&](const at::Tensor& m) { return m.index_select(0, kept); });
        EXPECT_TRUE(rows.requires_grad());
      }
      sliced.parameters()[0].tensor.mutable_grad() =
          step < 5 ? gradient : gradient.index_select(0, kept);
      small.parameters()[0].tensor.mutable_grad() = gradient.index_select(0, kept);
      sliced.step(1);
      small.step(1);
    }
    EXPECT_TRUE(sliced.parameters()[0].tensor.equal(small.parameters()[0].tensor));
    const auto a = sliced.state(), b = small.state();
    ASSERT_EQ(keys(sliced), keys(small));
    for (const auto& [key, tensor] : a) EXPECT_TRUE(tensor.equal(b.at(key))) << key;
    EXPECT_EQ(sliced.parameters()[0].lr_scale, 0.5);
  }
}

TEST(OptimizerReplace, RefusesWhatDoesNotFit) {
  Optimizer adam(kAdam, two_parameters());
  take_steps(adam, 0, 1);
  const auto same = [](const at::Tensor& m) { return m; };
  EXPECT_THAT(testing::message_of([&] { adam.replace("fc.bias", at::zeros({3}), same); }),
              HasSubstr("the new state has the sizes [64] and the new tensor [3]"));
  EXPECT_THAT(testing::message_of([&] { adam.replace("fc.bas", at::zeros({64}), same); }),
              HasSubstr("did you mean `fc.bias`?"));
  EXPECT_THAT(
      testing::message_of([&] { adam.replace("fc.bias", adam.parameters()[1].tensor * 2, same); }),
      HasSubstr("not a floating-point leaf (detach it)"));
  EXPECT_THAT(testing::message_of([&] { adam.moments("fc.bas"); }),
              HasSubstr("did you mean `fc.bias`?"));
}

// By hand: momentum 0.5, dampening 0.5, lr 1, gradients of 1. The buffer of a first step is the
// gradient, without dampening: 1, then 0.5 * 1 + 0.5 * 1 = 1; a zero buffer would give 0.5.
TEST(OptimizerStep, OfAParameterWhoseGradientComesLateIsItsFirst) {
  Optimizer sgd(SgdOptions{.lr = 1, .momentum = 0.5, .dampening = 0.5},
                {{"a", leaf(at::zeros({3}))}, {"b", leaf(at::zeros({3}))}});
  const at::Tensor a = sgd.parameters()[0].tensor, b = sgd.parameters()[1].tensor;
  a.mutable_grad() = at::ones({3});
  sgd.step(1);
  EXPECT_TRUE(a.equal(at::full({3}, -1.0f)));
  EXPECT_TRUE(b.equal(at::zeros({3})));
  EXPECT_THAT(keys(sgd), ElementsAre("a/momentum"));
  b.mutable_grad() = at::ones({3});
  sgd.step(1);
  EXPECT_TRUE(a.equal(at::full({3}, -2.0f)));
  EXPECT_TRUE(b.equal(at::full({3}, -1.0f)));
  sgd.zero_grad();
  EXPECT_FALSE(a.grad().defined());
  EXPECT_EQ(sgd.gradient_norm(), 0);
  EXPECT_EQ(sgd.clip(1), 0);
  sgd.step(1);  // weight decay and momentum alone move nothing
  EXPECT_TRUE(a.equal(at::full({3}, -2.0f)));
}

// The kernels for CPU take memory as it lies, whatever the strides say.
TEST(OptimizerStep, DoesNotDependOnTheLayoutInMemory) {
  const at::Tensor values = random({4, 3, 2, 2}, 1);
  for (const OptimizerOptions& options : kAll) {
    SCOPED_TRACE(options.name());
    const at::Tensor wide = random({4, 3, 2, 4}, 2);
    const at::Tensor holes = wide.slice(3, 0, 4, 2);
    holes.copy_(values);
    const at::Tensor rest = wide.slice(3, 1, 4, 2).clone();
    Optimizer optimizer(options,
                        {{"plain", leaf(values)},
                         {"channels_last", leaf(values.contiguous(at::MemoryFormat::ChannelsLast))},
                         {"flipped", leaf(values)},
                         {"holes", holes.detach().set_requires_grad(true)}});
    for (uint64_t step = 0; step < 4; ++step) {
      const at::Tensor gradient = random({4, 3, 2, 2}, 10 + step);
      for (const OptimizedParameter& parameter : optimizer.parameters()) {
        const bool flipped = parameter.name == "flipped";
        parameter.tensor.mutable_grad() =
            flipped ? gradient.contiguous(at::MemoryFormat::ChannelsLast) : gradient.clone();
      }
      optimizer.step(1);
      if (step == 1) optimizer.load_state(optimizer.state());
      if (step == 2) {  // the state changes its layout with the parameter
        const at::Tensor other =
            leaf(optimizer.parameters()[0].tensor.contiguous(at::MemoryFormat::ChannelsLast));
        optimizer.replace("plain", other, [](const at::Tensor& m) { return m; });
      }
    }
    for (const OptimizedParameter& parameter : optimizer.parameters()) {
      EXPECT_TRUE(at::allclose(parameter.tensor, optimizer.parameters()[0].tensor, 1e-6, 1e-7))
          << parameter.name;
      EXPECT_FALSE(at::allclose(parameter.tensor, values));
    }
    EXPECT_TRUE(wide.slice(3, 1, 4, 2).equal(rest));
  }
}

TEST(OptimizerStep, TakesSparseGradients) {
  Optimizer sparse(kAdam, {{"w", leaf(random({6, 64}, 1))}});
  Optimizer dense(kAdam, {{"w", leaf(random({6, 64}, 1))}});
  const at::Tensor gradient = random({6, 64}, 3);
  sparse.parameters()[0].tensor.mutable_grad() = gradient.to_sparse();
  dense.parameters()[0].tensor.mutable_grad() = gradient.clone();
  EXPECT_EQ(sparse.clip(0.5), dense.clip(0.5));
  sparse.step(1);
  dense.step(1);
  EXPECT_TRUE(sparse.parameters()[0].tensor.equal(dense.parameters()[0].tensor));
}

// One step of size lr against the gradient's sign is what Adam's first step is, in any dtype.
TEST(OptimizerStep, TakesParametersOfSeveralDtypes) {
  std::vector<OptimizedParameter> parameters;
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    parameters.push_back({std::string(c10::toString(dtype)), leaf(at::ones({5}, dtype))});
    parameters.back().tensor.mutable_grad() = at::full({5}, 2, dtype);
  }
  Optimizer adam(AdamOptions{.lr = 0.25}, parameters);
  EXPECT_NEAR(adam.gradient_norm(), std::sqrt(4 * 5 * 4.0), 1e-6);
  adam.step(1);
  for (const OptimizedParameter& parameter : parameters) {
    EXPECT_TRUE(at::allclose(parameter.tensor.to(at::kDouble), at::full({5}, 0.75, at::kDouble)))
        << parameter.name;
  }
}

// The interpreter keeps `mul(w, mask)` while gradients are off and its tensors are unchanged.
TEST(OptimizerStep, IsSeenByAModelThatKeepsItsEffectiveWeights) {
  const Model model = testing::parse_filled(R"(
input x : f32[1,4]
parameter w : f32[2,4]
buffer mask : bool[2,4]
mul = aten::mul.Tensor(w, mask)
y = aten::linear(x, mul)
return y = y
)");
  model.tensor("mask").fill_(true);
  for (const OptimizerOptions& options : kAll) {
    Optimizer optimizer(options, optimized_parameters(model, {}, ""));
    const at::NoGradGuard no_grad;
    const at::Tensor x = at::ones({1, 4});
    model.forward({x});
    set_gradients(optimizer, 1);
    optimizer.step(1);
    EXPECT_TRUE(model.forward({x}).at(0).equal(at::linear(x, model.tensor("w"))));
  }
}

TEST(OptimizerClip, LeavesShortGradientsAndSaysWhatIsNotFinite) {
  Optimizer sgd(kSgd, {{"w", leaf(at::zeros({2}))}});
  at::Tensor& gradient = sgd.parameters()[0].tensor.mutable_grad();
  gradient = at::tensor({3.0f, -4.0f});
  EXPECT_EQ(sgd.clip(5.5), 5);
  EXPECT_TRUE(gradient.equal(at::tensor({3.0f, -4.0f})));
  EXPECT_EQ(sgd.clip(2.5), 5);
  EXPECT_TRUE(at::allclose(gradient, at::tensor({1.5f, -2.0f})));
  gradient = at::tensor({std::numeric_limits<float>::quiet_NaN(), 1.0f});
  EXPECT_TRUE(std::isnan(sgd.clip(1)));
  EXPECT_TRUE(gradient.isnan().all().item<bool>());
  gradient = at::tensor({std::numeric_limits<float>::infinity(), 1.0f});
  EXPECT_TRUE(std::isinf(sgd.clip(1)));
}

TEST(Optimizer, RefusesWhatItCannotTrain) {
  const auto make = [](OptimizerOptions options, std::vector<OptimizedParameter> parameters) {
    return testing::message_of([&] { Optimizer(std::move(options), std::move(parameters)); });
  };
  EXPECT_EQ(make(kSgd, {{"a", leaf(at::ones({1}))}, {"a", leaf(at::ones({1}))}}),
            "a: there are two parameters of this name");
  EXPECT_THAT(make(kSgd, {{"a", at::ones({1})}}), HasSubstr("a: it is not a floating-point leaf"));
  EXPECT_THAT(make(kSgd, {{"a", leaf(at::ones({1})) * 2}}), HasSubstr("a: it is not a"));
  EXPECT_THAT(make(kSgd, {{"a", at::Tensor()}}), HasSubstr("a: it is not a"));
  EXPECT_EQ(make(kSgd, {}), "nothing was thrown");
  EXPECT_EQ(make(SgdOptions{.momentum = 0, .nesterov = true}, {}),
            "/nesterov: nesterov momentum requires a momentum and zero dampening (set momentum, "
            "for example to 0.9)");
  EXPECT_THAT(make(SgdOptions{.dampening = 0.5, .nesterov = true}, {}),
              HasSubstr("(set dampening to 0)"));
  EXPECT_EQ(make(AdamOptions{.beta1 = 1}, {}), "/beta1: it must be less than 1");
  EXPECT_EQ(make(AdamWOptions{.beta2 = 1}, {}), "/beta2: it must be less than 1");
  EXPECT_EQ(make(AdamOptions{.lr = -1}, {}), "/lr: -1 is less than 0");
  EXPECT_THAT(make(AdamOptions{.lr = std::nan("")}, {}), HasSubstr("/lr: "));
}

}  // namespace
}  // namespace compress
