// The losses that a recipe can name: options become terms of the training loss.

#include "compress/train/losses.h"

#include "compress/train/feature_losses.h"
#include "compress/train/label_losses.h"
#include "compress/train/loss.h"
#include "compress/train/teacher.h"
#include "compress/train/teacher_terms.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace compress {
namespace {

const at::Tensor& first_output(const Activations& activations) {
  if (activations.outputs.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the model returns no tensor");
  }
  return activations.outputs.front();
}

const at::Tensor& labels_of(const LossBatch& batch) {
  if (batch.batch.labels.defined()) return batch.batch.labels;
  throw Error(ErrorCode::kInvalidArgument, "the training data has no labels", {},
              "train on labelled data or leave the loss out");
}

// Class numbers that the logits lack. On a GPU an operator would stop the whole process, and
// looking at the labels waits for it: there only the first batch is checked.
const at::Tensor& class_labels_of(const LossBatch& batch) {
  constexpr int64_t kIgnored = -100;
  const at::Tensor& labels = labels_of(batch);
  if (labels.is_floating_point() || !(labels.is_cpu() || batch.epoch == 0)) return labels;
  const at::Tensor real = labels.masked_select(labels.ne(kIgnored));
  if (real.numel() == 0) return labels;
  const int64_t lowest = real.min().item<int64_t>(), highest = real.max().item<int64_t>();
  const int64_t classes = first_output(batch.student).size(-1);
  if (lowest >= 0 && highest < classes) return labels;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("label {} is outside the model's {} classes",
                                                       lowest < 0 ? lowest : highest, classes));
}

// Terms against labels.

at::Tensor term(const CrossEntropyOptions& options, const LossBatch& batch) {
  return cross_entropy(first_output(batch.student), class_labels_of(batch),
                       options.label_smoothing);
}

at::Tensor term(const MeanSquaredErrorOptions&, const LossBatch& batch) {
  const at::Tensor& labels = batch.batch.labels;
  return mean_squared_error(first_output(batch.student),
                            labels.defined() ? labels : batch.batch.inputs.at(0));
}

template <class Options>
class LabelLoss final : public Loss {
 public:
  explicit LabelLoss(Options options) : options_(std::move(options)) {}
  std::string name() const override { return std::string(Options::kName); }
  double weight() const override { return options_.weight; }
  void prepare(const LossBatch& batch, uint64_t) override {
    const at::NoGradGuard no_grad;
    try {
      term(options_, batch);
    } catch (const Error& error) {
      throw error.within(Options::kName);
    }
  }
  at::Tensor compute(const LossBatch& batch) override { return term(options_, batch); }

 private:
  Options options_;
};

// Terms against one teacher.

at::Tensor term(const DistillLogitsOptions& options, const LossBatch& batch,
                const Activations& teacher) {
  return kd_logits(first_output(batch.student), first_output(teacher), options.temperature,
                   options.reduction);
}

at::Tensor term(const DecoupledOptions& options, const LossBatch& batch,
                const Activations& teacher) {
  const at::Tensor loss =
      decoupled_kd(first_output(batch.student), first_output(teacher), class_labels_of(batch),
                   options.alpha, options.beta, options.temperature);
  if (options.warmup_epochs == 0) return loss;
  // mdistiller counts epochs from 1.
  const double begun = std::floor(batch.epoch) + 1;
  return loss * std::min(begun / static_cast<double>(options.warmup_epochs), 1.0);
}

at::Tensor term(const AttentionOptions& options, const LossBatch& batch,
                const Activations& teacher) {
  return sum_over_taps(options.taps, batch.student, teacher,
                       [&](const at::Tensor& ours, const at::Tensor& theirs) {
                         return attention_transfer(ours, theirs, options.form);
                       });
}

at::Tensor term(const FeatureErrorOptions& options, const LossBatch& batch,
                const Activations& teacher) {
  return sum_over_taps(options.taps, batch.student, teacher,
                       options.metric == FeatureMetric::kRelative ? feature_error : cosine_error);
}

at::Tensor term(const SimilarityOptions& options, const LossBatch& batch,
                const Activations& teacher) {
  return sum_over_taps({options.tap}, batch.student, teacher, similarity_preserving);
}

at::Tensor term(const RelationsOptions& options, const LossBatch& batch,
                const Activations& teacher) {
  return sum_over_taps({options.tap}, batch.student, teacher,
                       [&](const at::Tensor& ours, const at::Tensor& theirs) {
                         at::Tensor loss = options.distance * relational_distance(ours, theirs);
                         if (options.angle > 0) {
                           loss = loss + options.angle * relational_angle(ours, theirs);
                         }
                         return loss;
                       });
}

template <class Options>
class TeacherLoss final : public Loss {
 public:
  explicit TeacherLoss(Options options) : options_(std::move(options)) {}
  std::string name() const override { return std::string(Options::kName); }
  double weight() const override { return options_.weight; }

  LossWishes wishes() const override {
    if constexpr (requires { options_.taps; })
      return teacher_wishes(options_.teacher, options_.taps);
    if constexpr (requires { options_.tap; })
      return teacher_wishes(options_.teacher, {options_.tap});
    return teacher_wishes(options_.teacher, {});
  }

  void prepare(const LossBatch& batch, uint64_t) override {
    const at::NoGradGuard no_grad;
    constexpr bool kOfLogits = !requires { options_.taps; } && !requires { options_.tap; };
    for (const std::string& name : options_.teacher.names) {
      if (kOfLogits) require_same_logits(batch.student, teacher_of(batch, name), name);
    }
    compute(batch);
  }

  at::Tensor compute(const LossBatch& batch) override {
    return mean_over_teachers(Options::kName, options_.teacher, batch,
                              [&](const std::string&, const Activations& teacher) {
                                return term(options_, batch, teacher);
                              });
  }

 private:
  Options options_;
};

std::unique_ptr<Loss> make(const CrossEntropyOptions& options) {
  return std::make_unique<LabelLoss<CrossEntropyOptions>>(options);
}
std::unique_ptr<Loss> make(const MeanSquaredErrorOptions& options) {
  return std::make_unique<LabelLoss<MeanSquaredErrorOptions>>(options);
}
std::unique_ptr<Loss> make(const HintOptions& options) { return make_hint_loss(options); }
std::unique_ptr<Loss> make(const ContrastiveOptions& options) {
  return make_contrastive_loss(options);
}
template <class Options>
std::unique_ptr<Loss> make(const Options& options) {
  return std::make_unique<TeacherLoss<Options>>(options);
}

}  // namespace

std::unique_ptr<Loss> make_loss(const LossOptions& options) {
  return std::visit(
      [](const auto& chosen) {
        if constexpr (requires(Problems& problems) { chosen.validate(problems); }) {
          Problems problems;
          problems.set_prefix("/" + std::string(chosen.kName));
          chosen.validate(problems);
          problems.throw_if_any();
        }
        return make(chosen);
      },
      options.value);
}

}  // namespace compress
