// Contrastive representation distillation: memory banks and noise-contrastive estimation.

#include "compress/train/contrastive.h"

#include "compress/data/random.h"
#include "compress/error.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <cmath>

namespace compress {
namespace {

constexpr double kEps = 1e-7;       // of RepDistiller's estimator
constexpr int kMostAttempts = 100;  // to find a negative of another class, where there may be none

at::Tensor uniform(at::IntArrayRef sizes, double bound, const at::Generator& generator,
                   c10::Device device) {
  return at::empty(sizes, at::kFloat).uniform_(-bound, bound, generator).to(device);
}

}  // namespace

at::Tensor ContrastiveMemory::Embedding::operator()(const at::Tensor& feature) const {
  const at::Tensor embedded = at::linear(feature.flatten(1).to(weight.scalar_type()), weight, bias);
  return embedded / at::linalg_vector_norm(embedded, 2, {1}, /*keepdim=*/true).clamp_min(1e-12);
}

ContrastiveMemory::ContrastiveMemory(const ContrastiveSettings& settings, int64_t student_size,
                                     int64_t teacher_size, int64_t samples, uint64_t seed,
                                     c10::Device device)
    : settings_(settings), seed_(seed) {
  if (samples < 2) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("there is nothing to contrast in a training set of {} samples", samples));
  }
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  // torch's nn.Linear; rows of the banks have norm 1 on average.
  const auto embedding = [&](int64_t size) {
    const double bound = 1 / std::sqrt(static_cast<double>(size));
    Embedding made{uniform({settings.dim, size}, bound, generator, device),
                   uniform({settings.dim}, bound, generator, device)};
    made.weight.set_requires_grad(true);
    made.bias.set_requires_grad(true);
    return made;
  };
  student_ = embedding(student_size);
  teacher_ = embedding(teacher_size);
  const double bound = std::sqrt(3.0 / static_cast<double>(settings.dim));
  student_bank_ = uniform({samples, settings.dim}, bound, generator, device);
  teacher_bank_ = uniform({samples, settings.dim}, bound, generator, device);
  normalizers_ = at::full({2}, -1.0, at::TensorOptions(at::kFloat).device(device));
  labels_ = at::full({samples}, -1, at::kLong);
  steps_ = at::zeros({}, at::kLong);
}

at::Tensor ContrastiveMemory::draw(const std::vector<int64_t>& indices) const {
  const auto count = static_cast<int64_t>(indices.size());
  const auto samples = static_cast<uint64_t>(labels_.size(0));
  at::Tensor candidates = at::empty({count, 1 + settings_.negatives}, at::kLong);
  auto* next = candidates.mutable_data_ptr<int64_t>();
  const auto* label = labels_.const_data_ptr<int64_t>();
  SampleRandom random({seed_, static_cast<uint64_t>(steps_.item<int64_t>())});
  for (const int64_t index : indices) {
    *next++ = index;
    for (int64_t i = 0; i < settings_.negatives; ++i) {
      int64_t other = index;
      for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
        // One of the samples - 1 others.
        other = static_cast<int64_t>(random.below(samples - 1));
        other += other >= index ? 1 : 0;
        if (label[other] < 0 || label[other] != label[index]) break;
      }
      *next++ = other;
    }
  }
  return candidates;
}

at::Tensor ContrastiveMemory::step(const at::Tensor& student, const at::Tensor& teacher,
                                   const std::vector<int64_t>& indices, const at::Tensor& labels) {
  for (const int64_t index : indices) {
    COMPRESS_CHECK(index >= 0 && index < labels_.size(0),
                   "a sample is outside of the memory banks");
  }
  const at::Tensor places = at::tensor(indices, at::kLong);
  const bool classes = labels.defined() && labels.dim() == 1 && !labels.is_floating_point();
  if (classes) labels_.index_copy_(0, places, labels.to(at::kCPU, at::kLong));
  return step_with(student, teacher, draw(indices));
}

at::Tensor ContrastiveMemory::step_with(const at::Tensor& student, const at::Tensor& teacher,
                                        const at::Tensor& candidates) {
  const at::Tensor places = candidates.to(student_bank_.device());
  const at::Tensor embedded_student = student_(student), embedded_teacher = teacher_(teacher);
  const at::Tensor loss = estimate(embedded_student, teacher_bank_, places, 0) +
                          estimate(embedded_teacher, student_bank_, places, 1);
  const at::Tensor indices = places.select(1, 0);
  remember(student_bank_, embedded_student, indices);
  remember(teacher_bank_, embedded_teacher, indices);
  steps_.add_(1);
  return loss;
}

// The critic of section 3.1: whether a candidate is the sample or noise, which is uniform over all
// samples; minus the log-likelihood, for each sample of the batch.
at::Tensor ContrastiveMemory::estimate(const at::Tensor& embedded, const at::Tensor& bank,
                                       const at::Tensor& candidates, int64_t side) {
  const auto samples = static_cast<double>(bank.size(0));
  const auto negatives = static_cast<double>(candidates.size(1) - 1);
  // All scores of a row cost less than gathering its thousands of embeddings. The copy is what the
  // backward pass reads: the bank itself changes before that.
  const at::Tensor scores = at::mm(embedded, bank.clone().t()).gather(1, candidates);
  const at::Tensor raw = (scores / settings_.temperature).exp();
  const at::Tensor normalizer = normalizers_[side];
  if (normalizer.item<float>() < 0) normalizer.copy_(raw.detach().mean() * samples);
  const at::Tensor likelihood = raw / normalizer.clone();
  const double noise = negatives / samples;
  const at::Tensor total = likelihood + (noise + kEps);
  const at::Tensor is_sample = (likelihood.select(1, 0) / total.select(1, 0)).log().sum();
  const at::Tensor is_noise = (noise / total.slice(1, 1)).log().sum();
  return -(is_sample + is_noise) / static_cast<double>(candidates.size(0));
}

void ContrastiveMemory::remember(const at::Tensor& bank, const at::Tensor& embedded,
                                 const at::Tensor& indices) {
  const at::NoGradGuard no_grad;
  const at::Tensor mixed = bank.index_select(0, indices) * settings_.momentum +
                           embedded.detach() * (1 - settings_.momentum);
  const at::Tensor norm = at::linalg_vector_norm(mixed, 2, {1}, /*keepdim=*/true).clamp_min(1e-12);
  at::Tensor(bank).index_copy_(0, indices, mixed / norm);
}

std::map<std::string, at::Tensor> ContrastiveMemory::parameters() const {
  return {{"student.weight", student_.weight},
          {"student.bias", student_.bias},
          {"teacher.weight", teacher_.weight},
          {"teacher.bias", teacher_.bias}};
}

std::map<std::string, at::Tensor> ContrastiveMemory::buffers() const {
  return {{"student_bank", student_bank_},
          {"teacher_bank", teacher_bank_},
          {"normalizers", normalizers_},
          {"labels", labels_},
          {"steps", steps_}};
}

}  // namespace compress
