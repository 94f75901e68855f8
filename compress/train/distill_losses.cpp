// Losses that compare a student with its teacher, as free functions on tensors.

#include "compress/train/distill_losses.h"

#include "compress/error.h"

#include <ATen/ATen.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>

namespace compress {
namespace {

constexpr double kTiny = 1e-12;  // the eps of torch's normalize, and of RepDistiller's distances

at::Tensor wide(const at::Tensor& tensor) {
  return at::isReducedFloatingType(tensor.scalar_type()) ? tensor.to(at::kFloat) : tensor;
}

std::string shape(const at::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.sizes(), ", "));
}

void require(bool fits, const at::Tensor& student, const at::Tensor& teacher,
             const std::string& what) {
  if (fits) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: the student's is {}, the teacher's {}",
                                                       what, shape(student), shape(teacher)));
}

void require_equal(const at::Tensor& student, const at::Tensor& teacher) {
  require(student.sizes() == teacher.sizes(), student, teacher, "features differ in size");
}

void require_samples(const at::Tensor& student, const at::Tensor& teacher) {
  require(student.dim() >= 2 && teacher.dim() >= 2 && student.size(0) == teacher.size(0), student,
          teacher, "features must have the same number of samples, at least two dimensions");
}

// Logits as [predictions, classes].
struct Logits {
  at::Tensor student, teacher;
};

Logits rows(const at::Tensor& student, const at::Tensor& teacher) {
  require(student.sizes() == teacher.sizes() && student.dim() >= 2, student, teacher,
          "logits must be [n, classes] or [n, length, classes], of equal sizes");
  const int64_t classes = student.size(-1);
  return {wide(student).reshape({-1, classes}), wide(teacher).reshape({-1, classes})};
}

at::Tensor flat(const at::Tensor& feature) { return wide(feature).flatten(1); }

// Rows of [n, k] divided by their 2-norm; a row of zeros stays.
at::Tensor unit_rows(const at::Tensor& rows) {
  return rows / at::linalg_vector_norm(rows, 2, {1}, /*keepdim=*/true).clamp_min(kTiny);
}

// [n, places]
at::Tensor attention_map(const at::Tensor& feature) {
  const int64_t channels = feature.dim() == 4 ? 1 : 2;
  return unit_rows(feature.square().mean(channels).flatten(1));
}

// Distances between all samples of [n, k], divided by their mean. Two different samples at the same
// place are 1e-6 apart, as in RepDistiller, so that they count in the mean.
at::Tensor relative_distances(const at::Tensor& samples) {
  const int64_t n = samples.size(0);
  constexpr int64_t kWithoutProducts = 2;  // no |a|^2 + |b|^2 - 2ab, which cancels
  const at::Tensor pairs = 1 - at::eye(n, samples.options());
  const at::Tensor distances =
      at::cdist(samples, samples, 2, kWithoutProducts).clamp_min(1e-6) * pairs;
  return distances / (distances.sum() / static_cast<double>(n * (n - 1)));
}

// Cosines [n, n, n]: at sample j between the directions to i and to k.
at::Tensor angles(const at::Tensor& samples) {
  const at::Tensor apart = samples.unsqueeze(0) - samples.unsqueeze(1);
  const at::Tensor norms = at::linalg_vector_norm(apart, 2, {2}, /*keepdim=*/true);
  // A sample has no direction to itself or to a copy of itself: 0, and no gradient.
  const at::Tensor directions = apart / norms.masked_fill(norms < kTiny, 1.0);
  return at::bmm(directions, directions.transpose(1, 2));
}

// KL(teacher || student) of log-probabilities, summed.
at::Tensor divergence(const at::Tensor& student, const at::Tensor& teacher) {
  return at::kl_div(student, teacher, at::Reduction::Sum, /*log_target=*/true);
}

// The log-probabilities of (the label's class, all other classes), [n, 2], without a logarithm of a
// difference.
at::Tensor label_against_rest(const at::Tensor& label_logit, const at::Tensor& other_logits) {
  const at::Tensor margin = label_logit - other_logits.logsumexp({1}, /*keepdim=*/true);
  return at::cat({at::log_sigmoid(margin), at::log_sigmoid(-margin)}, 1);
}

}  // namespace

at::Tensor kd_logits(const at::Tensor& student, const at::Tensor& teacher, double temperature,
                     KlReduction reduction) {
  const Logits logits = rows(student, teacher);
  const at::Tensor sum = divergence(at::log_softmax(logits.student / temperature, 1),
                                    at::log_softmax(logits.teacher / temperature, 1));
  const int64_t count =
      reduction == KlReduction::kBatchMean ? logits.student.size(0) : logits.student.numel();
  return sum * (temperature * temperature / static_cast<double>(count));
}

at::Tensor decoupled_kd(const at::Tensor& student, const at::Tensor& teacher,
                        const at::Tensor& labels, double alpha, double beta, double temperature) {
  const Logits logits = rows(student, teacher);
  const int64_t count = logits.student.size(0), classes = logits.student.size(1);
  if (classes < 2 || labels.numel() != count || labels.scalar_type() != at::kLong) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("needs at least 2 classes and a whole number for each prediction: "
                            "logits are {}, labels {}",
                            shape(student), shape(labels)));
  }
  const at::Tensor label = labels.reshape({count, 1}).to(student.device());
  const at::Tensor first = at::arange(classes - 1, label.options()).unsqueeze(0);
  const at::Tensor others = first + first.ge(label);  // every class but the label's
  const at::Tensor s = logits.student / temperature, t = logits.teacher / temperature;
  const at::Tensor s_others = s.gather(1, others), t_others = t.gather(1, others);
  const at::Tensor target = divergence(label_against_rest(s.gather(1, label), s_others),
                                       label_against_rest(t.gather(1, label), t_others));
  const at::Tensor non_target =
      divergence(at::log_softmax(s_others, 1), at::log_softmax(t_others, 1));
  return (alpha * target + beta * non_target) *
         (temperature * temperature / static_cast<double>(count));
}

at::Tensor hint(const at::Tensor& student, const at::Tensor& teacher) {
  require_equal(student, teacher);
  return at::mse_loss(wide(student), wide(teacher));
}

at::Tensor attention_transfer(const at::Tensor& student, const at::Tensor& teacher,
                              AttentionForm form) {
  const bool maps = student.dim() == 4 && teacher.dim() == 4 && student.size(0) == teacher.size(0);
  const bool tokens = student.dim() == 3 && teacher.dim() == 3 &&
                      student.sizes().slice(0, 2) == teacher.sizes().slice(0, 2);
  require(maps || tokens, student, teacher,
          "attention is compared between two [n, c, h, w] or two [n, length, width]");
  at::Tensor s = wide(student), t = wide(teacher);
  if (maps && s.sizes().slice(2) != t.sizes().slice(2)) {
    const std::vector<int64_t> smaller = {std::min(s.size(2), t.size(2)),
                                          std::min(s.size(3), t.size(3))};
    s = at::adaptive_avg_pool2d(s, smaller);
    t = at::adaptive_avg_pool2d(t, smaller);
  }
  const at::Tensor difference = attention_map(s) - attention_map(t);
  return form == AttentionForm::kSquared ? difference.square().mean()
                                         : at::linalg_vector_norm(difference, 2, {1}).mean();
}

at::Tensor similarity_preserving(const at::Tensor& student, const at::Tensor& teacher) {
  require_samples(student, teacher);
  const at::Tensor s = flat(student), t = flat(teacher);
  return (unit_rows(at::mm(s, s.t())) - unit_rows(at::mm(t, t.t()))).square().mean();
}

at::Tensor relational_distance(const at::Tensor& student, const at::Tensor& teacher) {
  require_samples(student, teacher);
  const at::Tensor s = flat(student), t = flat(teacher);
  if (s.size(0) < 2) return s.sum() * 0;  // no pairs; still a part of the graph
  return at::smooth_l1_loss(relative_distances(s), relative_distances(t));
}

at::Tensor relational_angle(const at::Tensor& student, const at::Tensor& teacher) {
  require_samples(student, teacher);
  return at::smooth_l1_loss(angles(flat(student)), angles(flat(teacher)));
}

at::Tensor feature_error(const at::Tensor& student, const at::Tensor& teacher) {
  require_equal(student, teacher);
  const at::Tensor t = wide(teacher);
  return (wide(student) - t).square().sum() / t.square().sum().clamp_min(kTiny);
}

at::Tensor cosine_error(const at::Tensor& student, const at::Tensor& teacher) {
  require_equal(student, teacher);
  require_samples(student, teacher);
  const bool tokens = student.dim() == 3;
  const at::Tensor s = tokens ? wide(student).flatten(0, 1) : flat(student);
  const at::Tensor t = tokens ? wide(teacher).flatten(0, 1) : flat(teacher);
  return (1 - (unit_rows(s) * unit_rows(t)).sum(1)).mean();
}

}  // namespace compress
