// Losses equal Python's torch and closed forms, values and gradients.

#include "compress/train/distill_losses.h"

#include "compress/error.h"
#include "compress/train/label_losses.h"
#include "tests/support/errors.h"
#include "tests/train/golden.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <functional>

namespace compress {
namespace {

using testing::distance;
using testing::distillation_golden;
using testing::golden_tensor;
using ::testing::HasSubstr;

using LossFunction = std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>;

at::Tensor normal(at::IntArrayRef sizes, uint64_t seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble);
}

at::Tensor gradient(const LossFunction& loss, const at::Tensor& student,
                    const at::Tensor& teacher) {
  const at::Tensor leaf = student.detach().clone().set_requires_grad(true);
  loss(leaf, teacher).backward();
  return leaf.grad();
}

void expect_golden(const std::string& name, const LossFunction& loss) {
  SCOPED_TRACE(name);
  const nlohmann::json& golden = distillation_golden().at(name);
  const at::Tensor student = golden_tensor(golden.at("student"));
  const at::Tensor teacher = golden_tensor(golden.at("teacher"));
  const at::Tensor expected = golden_tensor(golden.at("gradient"));
  const double value = golden.at("value").get<double>();
  // Doubles on both sides; RKD's script loses half of the digits in |a|^2 + |b|^2 - 2ab.
  EXPECT_NEAR(loss(student, teacher).item<double>(), value, 1e-11);
  EXPECT_LT(distance(gradient(loss, student, teacher), expected), 1e-11);
  ASSERT_GT(expected.abs().max().item<double>(), 1e-4) << "the case could not fail";
  // What training computes with: 1e-5 of the largest number that takes part.
  const double scale = std::max(1.0, std::abs(value));
  EXPECT_NEAR(loss(student.to(at::kFloat), teacher.to(at::kFloat)).item<double>(), value,
              1e-5 * scale);
  EXPECT_LT(distance(gradient(loss, student.to(at::kFloat), teacher.to(at::kFloat)), expected),
            1e-5 * scale);
}

LossFunction kd_at(double temperature, KlReduction reduction = KlReduction::kBatchMean) {
  return [=](const at::Tensor& s, const at::Tensor& t) {
    return kd_logits(s, t, temperature, reduction);
  };
}

TEST(DistillLosses, EqualTheScript) {
  expect_golden("kd", kd_at(4));
  expect_golden("kd_tokens", kd_at(1));
  expect_golden("kd_over_elements", kd_at(2, KlReduction::kMean));
  expect_golden("dkd", [](const at::Tensor& s, const at::Tensor& t) {
    const at::Tensor labels = golden_tensor(distillation_golden().at("dkd").at("labels"));
    return decoupled_kd(s, t, labels, 1, 8, 4);
  });
  expect_golden("hint", hint);
  const auto attention = [](const at::Tensor& s, const at::Tensor& t) {
    return attention_transfer(s, t);
  };
  expect_golden("attention", attention);
  expect_golden("attention_smaller_teacher", attention);
  expect_golden("attention_larger_teacher", attention);
  expect_golden("attention_norm", [](const at::Tensor& s, const at::Tensor& t) {
    return attention_transfer(s, t, AttentionForm::kNorm);
  });
  expect_golden("similarity", similarity_preserving);
  expect_golden("rkd_distance", relational_distance);
  expect_golden("rkd_distance_far", relational_distance);
  expect_golden("rkd_angle", relational_angle);
  expect_golden("feature_error", feature_error);
  expect_golden("cosine", cosine_error);
  expect_golden("cosine_tokens", cosine_error);
}

TEST(LabelLosses, EqualTheScript) {
  for (const std::string name : {"cross_entropy", "cross_entropy_smooth", "cross_entropy_tokens"}) {
    const double smoothing = distillation_golden().at(name).at("smoothing").get<double>();
    expect_golden(name, [&](const at::Tensor& logits, const at::Tensor& labels) {
      return cross_entropy(logits, labels.to(at::kLong), smoothing);
    });
  }
}

TEST(LabelLosses, TakeProbabilitiesAndIgnoreMinusHundred) {
  const at::Tensor logits = normal({3, 4}, 1);
  const at::Tensor labels = at::tensor({2, 0, 3}, at::kLong);
  const at::Tensor probabilities = at::one_hot(labels, 4).to(at::kFloat);
  EXPECT_NEAR(cross_entropy(logits, probabilities).item<double>(),
              cross_entropy(logits, labels).item<double>(), 1e-7);
  const at::Tensor holes = at::tensor({2, -100, 3}, at::kLong);
  const at::Tensor kept = at::tensor({0, 2}, at::kLong);
  EXPECT_NEAR(
      cross_entropy(logits, holes).item<double>(),
      cross_entropy(logits.index_select(0, kept), labels.index_select(0, kept)).item<double>(),
      1e-12);
}

TEST(LabelLosses, SquaredErrorDoesNotBroadcast) {
  const at::Tensor output = at::tensor({1.f, 2.f, 5.f}).view({3, 1});
  const at::Tensor target = at::tensor({0.f, 2.f, 2.f});
  EXPECT_NEAR(mean_squared_error(output, target).item<double>(), 10.0 / 3, 1e-6);
  EXPECT_THAT(testing::message_of([&] { mean_squared_error(output, at::zeros({2})); }),
              HasSubstr("the model's output is [3, 1], its target [2]"));
  EXPECT_THAT(testing::message_of([&] { mean_squared_error(output, at::zeros({3}, at::kLong)); }),
              HasSubstr("whole numbers"));
  EXPECT_THAT(testing::message_of([&] {
                cross_entropy(at::zeros({2, 5}), at::zeros({3}, at::kLong));
              }),
              HasSubstr("logits are [2, 5], labels [3]"));
}

TEST(KdLogits, IsZeroForEqualLogitsWithoutGradient) {
  const at::Tensor logits = normal({4, 10}, 1).to(at::kFloat) * 30;
  EXPECT_EQ(kd_logits(logits, logits.clone(), 4).item<float>(), 0.f);
  EXPECT_LT(gradient(kd_at(4), logits, logits).abs().max().item<double>(), 1e-6);
}

// T^2 KL -> ||centred(z_t) - centred(z_s)||^2 / (2K) for K classes (Hinton et al., eq. 4).
TEST(KdLogits, MatchesCentredLogitsAtHighTemperature) {
  const at::Tensor student = normal({3, 5}, 1), teacher = normal({3, 5}, 2);
  const auto centred = [](const at::Tensor& z) { return z - z.mean(1, true); };
  const double limit =
      (centred(teacher) - centred(student)).square().sum().item<double>() / (2 * 5 * 3);
  const double at_thousand = kd_logits(student, teacher, 1e3).item<double>();
  EXPECT_NEAR(at_thousand, limit, 1e-2 * limit);  // the next term is of the order of 1/T
  EXPECT_GT(std::abs(kd_logits(student, teacher, 4).item<double>() - limit), 1e-2 * limit);
}

TEST(KdLogits, TheMeanOverElementsIsSmallerByTheNumberOfClasses) {
  const at::Tensor student = normal({6, 10}, 1), teacher = normal({6, 10}, 2);
  EXPECT_NEAR(kd_logits(student, teacher, 2).item<double>(),
              10 * kd_logits(student, teacher, 2, KlReduction::kMean).item<double>(), 1e-12);
}

TEST(KdLogits, ComputesHalfPrecisionInFloat) {
  const at::Tensor student = normal({4, 5}, 1).to(at::kBFloat16);
  const at::Tensor teacher = normal({4, 5}, 2).to(at::kBFloat16);
  const at::Tensor loss = kd_logits(student, teacher, 4);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  EXPECT_TRUE(loss.equal(kd_logits(student.to(at::kFloat), teacher.to(at::kFloat), 4)));
}

// KL(p_t || p_s) = KL(b_t || b_s) + (1 - p_t of the label) KL of the rest, b = (label, rest).
TEST(DecoupledKd, AddsUpToKd) {
  for (int64_t label = 0; label < 4; ++label) {
    const at::Tensor student = normal({1, 4}, 1), teacher = normal({1, 4}, 2);
    const double temperature = 3;
    const double share = 1 - at::softmax(teacher / temperature, 1).index({0, label}).item<double>();
    EXPECT_NEAR(
        decoupled_kd(student, teacher, at::tensor({label}), 1, share, temperature).item<double>(),
        kd_logits(student, teacher, temperature).item<double>(), 1e-12);
  }
}

TEST(DecoupledKd, StaysFiniteWhereProbabilitiesVanish) {
  const at::Tensor student = at::tensor({400.f, 0.f, -400.f}).view({1, 3});
  const at::Tensor teacher = at::tensor({-400.f, 0.f, 400.f}).view({1, 3});
  const at::Tensor loss = decoupled_kd(student, teacher, at::tensor({int64_t{0}}), 1, 8, 1);
  // TCKD: the teacher is sure of the rest, to which the student gives exp(-400): 400 nats; NCKD:
  // the teacher takes the third class, at 400 nats below the second.
  EXPECT_NEAR(loss.item<double>(), 400 + 8 * 400, 1e-2);
}

TEST(Attention, IgnoresTheScaleOfFeatures) {
  const at::Tensor student = normal({3, 4, 5, 5}, 1), teacher = normal({3, 6, 5, 5}, 2);
  const double loss = attention_transfer(student, teacher).item<double>();
  EXPECT_GT(loss, 1e-3);
  EXPECT_NEAR(attention_transfer(student * 7, teacher * 0.1).item<double>(), loss, 1e-12);
  EXPECT_NEAR(attention_transfer(student * 7, student).item<double>(), 0, 1e-12);
}

TEST(Attention, ComparesTokens) {
  // [n, length, width] is [n, width, length, 1] with the channels last.
  const at::Tensor student = normal({2, 5, 3}, 1), teacher = normal({2, 5, 8}, 2);
  const auto map = [](const at::Tensor& f) { return f.transpose(1, 2).unsqueeze(3); };
  EXPECT_NEAR(attention_transfer(student, teacher).item<double>(),
              attention_transfer(map(student), map(teacher)).item<double>(), 1e-14);
}

// An orthogonal matrix [k, k].
at::Tensor rotation(int64_t k) { return std::get<0>(at::linalg_qr(normal({k, k}, 9))); }

TEST(Relations, IgnoreRotationsOfFeatures) {
  const at::Tensor student = normal({6, 4}, 1), teacher = normal({6, 3}, 2);
  const at::Tensor turned = at::mm(student, rotation(4));
  for (const auto loss : {similarity_preserving, relational_distance, relational_angle}) {
    const double value = loss(student, teacher).item<double>();
    EXPECT_GT(value, 1e-4);
    EXPECT_NEAR(loss(turned, teacher).item<double>(), value, 1e-10);
    EXPECT_NEAR(loss(turned, student).item<double>(), 0, 1e-10);
  }
  // Distances and angles do not know where the origin is, nor the scale; similarities do.
  const at::Tensor moved = 3 * turned + 5;
  EXPECT_NEAR(relational_distance(moved, student).item<double>(), 0, 1e-10);
  EXPECT_NEAR(relational_angle(moved, student).item<double>(), 0, 1e-10);
  EXPECT_GT(similarity_preserving(moved, student).item<double>(), 1e-4);
}

TEST(Relations, OfASingleSampleAreZero) {
  const at::Tensor student = normal({1, 4}, 1), teacher = normal({1, 3}, 2);
  for (const auto loss : {similarity_preserving, relational_distance, relational_angle}) {
    EXPECT_EQ(loss(student, teacher).item<double>(), 0);
    EXPECT_EQ(gradient(loss, student, teacher).abs().max().item<double>(), 0);
  }
}

TEST(Relations, StayFiniteWhereSamplesCoincide) {
  at::Tensor student = normal({4, 3}, 1);
  student[1].copy_(student[0]);
  const at::Tensor dead = at::zeros({4, 3}, at::kDouble), teacher = normal({4, 3}, 2);
  for (const auto loss : {similarity_preserving, relational_distance, relational_angle}) {
    for (const at::Tensor& feature : {student, dead}) {
      EXPECT_TRUE(at::isfinite(loss(feature, teacher)).item<bool>());
      // A gradient of 1e6 would end the training as surely as one of infinity.
      EXPECT_LT(gradient(loss, feature, teacher).abs().max().item<double>(), 1e2);
    }
  }
}

TEST(FeatureError, IsRelativeToTheTeachersEnergy) {
  const at::Tensor teacher = normal({2, 3, 4}, 1);
  EXPECT_NEAR(feature_error(teacher * 1.1, teacher).item<double>(), 0.01, 1e-12);
  EXPECT_NEAR(feature_error(at::zeros_like(teacher), teacher * 100).item<double>(), 1, 1e-12);
  EXPECT_NEAR(cosine_error(teacher * 5, teacher).item<double>(), 0, 1e-12);
  EXPECT_NEAR(cosine_error(-teacher, teacher).item<double>(), 2, 1e-12);
}

TEST(DistillLosses, RefuseWhatDoesNotFitWithBothShapes) {
  const at::Tensor a = at::zeros({2, 10}), b = at::zeros({2, 100}), c = at::zeros({3, 10});
  EXPECT_THAT(testing::message_of([&] { kd_logits(a, b, 4); }),
              HasSubstr("the student's is [2, 10], the teacher's [2, 100]"));
  EXPECT_THAT(testing::message_of([&] { decoupled_kd(a, a, at::zeros({3}, at::kLong), 1, 8, 4); }),
              HasSubstr("logits are [2, 10], labels [3]"));
  EXPECT_THAT(testing::message_of([&] { hint(a, b); }),
              HasSubstr("[2, 10], the teacher's [2, 100]"));
  EXPECT_THAT(testing::message_of([&] { attention_transfer(a, a); }), HasSubstr("[n, c, h, w]"));
  EXPECT_THAT(testing::message_of([&] { similarity_preserving(a, c); }),
              HasSubstr("same number of samples"));
  EXPECT_THAT(testing::message_of([&] { relational_angle(a, c); }),
              HasSubstr("same number of samples"));
  EXPECT_THAT(testing::message_of([&] { feature_error(a, b); }),
              HasSubstr("features differ in size"));
}

}  // namespace
}  // namespace compress
