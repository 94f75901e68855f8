// A walk computes what a run computes, and sees what was changed on the way.

#include "compress/calibrate/walk.h"

#include "compress/calibrate/layer_input.h"
#include "compress/error.h"
#include "compress/files.h"
#include "compress/graph/extract.h"
#include "compress/weight.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <cmath>

namespace compress {
namespace {

using ::testing::HasSubstr;

// Two batches of different sizes.
BatchSource batches(const at::Tensor& x) {
  return [x](const auto& take) {
    take({x.narrow(0, 0, 3)});
    take({x.narrow(0, 3, x.size(0) - 3)});
  };
}

class WalkTest : public ::testing::Test {
 protected:
  WalkTest() : model_(load_model("zoo:resnet20-cifar10")), x_(at::randn({5, 3, 32, 32})) {
    model_.eval();
  }
  Model model_;
  at::Tensor x_;
};

TEST_F(WalkTest, ReachesTheOutputsOfARun) {
  Walk walk(model_, batches(x_));
  EXPECT_EQ(walk.samples(), 5);
  EXPECT_EQ(walk.batches(), 2);
  for (const Weight& weight : weights(model_)) walk.advance(weight.layer());
  walk.finish();
  const std::vector<at::Tensor>& out = walk.at(model_.graph().outputs()[0].value.value());
  EXPECT_TRUE(at::allclose(at::cat(out), model_.forward({x_})[0], 1e-4, 1e-4));
}

TEST_F(WalkTest, SeesTheLayersThatWereChanged) {
  Model changed = model_.clone();
  Walk walk(changed, batches(x_));
  std::vector<Weight> all = weights(changed);
  for (size_t i = 0; i < 3; ++i) {
    walk.advance(all[i].layer());
    all[i].set_stored(all[i].effective() * 0.5);
  }
  walk.advance(all[3].layer());
  const Value* input = layer_input(*all[3].layer());
  const at::Tensor expected =
      extract(changed, {changed.graph().inputs()[0]}, {input}).forward({x_})[0];
  EXPECT_TRUE(at::allclose(at::cat(walk.at(input)), expected, 1e-4, 1e-4));
}

TEST_F(WalkTest, GoesOnWithTheContentThatIsPutIn) {
  Walk walk(model_, batches(x_));
  const std::vector<Weight> all = weights(std::as_const(model_));
  walk.advance(all[4].layer());
  const Value* input = layer_input(*all[4].layer());
  std::vector<at::Tensor> zeros;
  for (const at::Tensor& tensor : walk.at(input)) zeros.push_back(at::zeros_like(tensor));
  walk.set(input, zeros);
  EXPECT_EQ(walk.at(input)[1].abs().max().item<float>(), 0);
}

TEST_F(WalkTest, RefusesDataThatDoesNotFit) {
  const auto refusal = [&](const BatchSource& source) -> std::string {
    try {
      Walk walk(model_, source);
      walk.advance(weights(std::as_const(model_))[2].layer());
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_THAT(refusal({}), HasSubstr("there is no calibration data"));
  EXPECT_THAT(refusal([](const auto&) {}), HasSubstr("there is no calibration data"));
  EXPECT_THAT(refusal([&](const auto& take) {
                take({x_, x_});
              }),
              HasSubstr("calibration data has 2 inputs, the model 1"));
  EXPECT_THAT(refusal([](const auto& take) {
                take({at::full({1, 3, 32, 32}, NAN)});
              }),
              HasSubstr("NaN or infinite elements on calibration data"));
}

TEST_F(WalkTest, KnowsOnlyLiveValues) {
  Walk walk(model_, batches(x_));
  walk.finish();
  EXPECT_THROW(walk.at(model_.graph().inputs()[0]), std::logic_error);
}

TEST_F(WalkTest, ExtractedPartsShareTensorsAndNames) {
  const std::vector<Weight> all = weights(std::as_const(model_));
  const Value* from = layer_input(*all[1].layer());
  const Value* to = layer_input(*all[5].layer());
  const Model part = extract(model_, {from}, {to});
  EXPECT_EQ(part.graph().inputs()[0]->name(), from->name());
  EXPECT_EQ(part.graph().outputs()[0].name, to->name());
  EXPECT_TRUE(part.tensor(all[2].name()).is_same(model_.tensor(all[2].name())));
  EXPECT_EQ(part.find_tensor(all[5].name()), nullptr);
  EXPECT_THROW(extract(model_, {to}, {from}), Error);
}

}  // namespace
}  // namespace compress
