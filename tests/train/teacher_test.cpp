// A teacher looks without gradients, and with a cache only once.

#include "compress/train/teacher.h"

#include "compress/data/tensors.h"
#include "compress/error.h"
#include "compress/train/losses.h"
#include "compress/train/teacher_cache.h"
#include "compress/zoo/zoo.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

#include <functional>

namespace compress {
namespace {

using ::testing::HasSubstr;
using testing::ScratchDir;

constexpr std::string_view kClassifier =
    "input x : f32[batch,4]\n"
    "parameter fc.weight : f32[3,4]\n"
    "fc = aten::linear(x, fc.weight) @ fc\n"
    "dropout = aten::dropout(fc, 0.5, true)\n"
    "return output = dropout\n";

DatasetPtr data() {
  at::manual_seed(3);
  return tensor_dataset({at::randn({10, 4})}, at::arange(10).remainder(3), "ten");
}

TEST(Teacher, IsInEvaluationModeAndHasNoGradients) {
  Model model = testing::parse_filled(kClassifier);
  for (at::Tensor& parameter : model.parameters()) parameter.set_requires_grad(true);
  Teacher teacher("original", std::move(model), {"fc"});
  const Batch batch = data()->get_range(0, 4);
  const Activations seen = teacher.run(batch, 0);
  EXPECT_FALSE(seen.outputs.at(0).requires_grad());
  EXPECT_FALSE(seen.taps.at("fc").requires_grad());
  const at::Tensor expected =
      at::linear(batch.inputs[0], teacher.model().tensor("fc.weight")).detach();
  EXPECT_TRUE(seen.outputs[0].equal(expected));  // nothing was dropped
  EXPECT_TRUE(seen.taps.at("fc").equal(expected));
  Teacher moved(std::move(teacher));
  EXPECT_TRUE(moved.run(batch, 1).taps.at("fc").equal(expected));
  EXPECT_EQ(moved.runs(), 2);
}

TEST(Teacher, RefusesWhatDoesNotFit) {
  EXPECT_THAT(testing::message_of([] { Teacher("t", testing::parse_filled(kClassifier), {"fx"}); }),
              HasSubstr("teacher `t`: the model has no module and no value `fx`"));
  const Teacher images("big", zoo::build("resnet20-cifar10"));
  EXPECT_THAT(testing::message_of([&] { images.require_fit(data()->info(), 4); }),
              HasSubstr("teacher `big`: a sample of ten is [4], the model's input"));
  const Teacher fixed("old", testing::parse_filled("input x : f32[2,4]\n"
                                                   "relu = aten::relu(x)\n"
                                                   "return output = relu\n"));
  EXPECT_EQ(testing::message_of([&] { fixed.require_fit(data()->info(), 2); }),
            "nothing was thrown");
  EXPECT_THAT(testing::message_of([&] { fixed.require_fit(data()->info(), 4); }),
              HasSubstr("teacher `old`: its batch size 2 is baked in, training has batches of 4"));
  const Activations three{{at::zeros({2, 3})}, {}}, five{{at::zeros({2, 5})}, {}};
  const Activations tokens{{at::zeros({2, 7, 3})}, {}};
  EXPECT_THAT(testing::message_of([&] { require_same_logits(three, five, "t"); }),
              HasSubstr("teacher `t`: it tells 5 classes apart, the student 3"));
  EXPECT_THAT(testing::message_of([&] { require_same_logits(three, tokens, "t"); }),
              HasSubstr("its output is [2, 7, 3], the student's [2, 3]"));
}

TEST(Teacher, RunsOnceForEverySampleWithACache) {
  const ScratchDir scratch;
  const auto cached = [&](bool augmented) {
    auto teacher = std::make_unique<Teacher>("t", testing::parse_filled(kClassifier));
    teacher->use_cache(std::make_unique<TeacherCache>(
        scratch.path(), TeacherCacheKey{"abc", "ten", 5, augmented}, data()->size()));
    return teacher;
  };
  const auto epoch = [](Teacher& teacher, uint64_t number) {
    for (int64_t first = 0; first < 10; first += 4) {
      teacher.run(data()->get_range(first, 4), number);
    }
    return teacher.runs();
  };
  const auto plain = cached(false);
  EXPECT_EQ(epoch(*plain, 0), 3);
  EXPECT_EQ(epoch(*plain, 1), 3);
  EXPECT_EQ(epoch(*cached(false), 7), 0);  // another process, another day
  // Augmented samples are others in every epoch.
  const auto augmented = cached(true);
  EXPECT_EQ(epoch(*augmented, 0), 3);
  EXPECT_EQ(epoch(*augmented, 1), 6);
  EXPECT_EQ(epoch(*augmented, 0), 6);
  EXPECT_EQ(epoch(*cached(true), 1), 0);
}

TEST(Teacher, IgnoresTheCacheWhileThereAreTaps) {
  const ScratchDir scratch;
  Teacher teacher("t", testing::parse_filled(kClassifier), {"fc"});
  teacher.use_cache(
      std::make_unique<TeacherCache>(scratch.path(), TeacherCacheKey{"abc", "ten"}, 10));
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(teacher.run(data()->get_range(0, 4), 0).taps.at("fc").defined());
  }
  EXPECT_EQ(teacher.runs(), 2);
}

// A convolutional network, batches in a new order each epoch: the same bits either way.
TEST(Teacher, TheLossIsTheSameWithACacheBitForBit) {
  const ScratchDir scratch;
  at::manual_seed(4);
  const DatasetPtr images = tensor_dataset({at::randn({12, 3, 32, 32})}, {}, "twelve");
  const Model student = zoo::build("resnet20-cifar10{seed=1}");
  Teacher with("t", zoo::build("resnet20-cifar10{seed=2}")), without("t", with.model().clone());
  with.use_cache(
      std::make_unique<TeacherCache>(scratch.path(), TeacherCacheKey{"abc", "twelve"}, 12));
  const std::unique_ptr<Loss> loss = make_loss(DistillLogitsOptions{});
  const std::vector<std::vector<int64_t>> order = {{0, 1, 2, 3}, {4, 5, 6, 7},  {8, 9, 10, 11},
                                                   {7, 2, 9, 0}, {11, 4, 1, 6}, {3, 10, 5, 8}};
  for (size_t step = 0; step < order.size(); ++step) {
    const Batch batch = images->get(order[step]);
    const Activations ours{student.forward(batch.inputs), {}};
    const auto value = [&](Teacher& teacher) {
      const std::map<std::string, Activations> teachers = {
          {"original", teacher.run(batch, step / 3)}};
      return loss->compute({batch, ours, teachers, 0.0, 12});
    };
    EXPECT_TRUE(value(with).equal(value(without))) << "step " << step;
  }
  EXPECT_EQ(with.runs(), 3);
  EXPECT_EQ(without.runs(), 6);
}

}  // namespace
}  // namespace compress
