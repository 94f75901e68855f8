// Losses on features that bring tensors of their own: adapters, embeddings, memory banks.

#include "compress/train/feature_losses.h"

#include "compress/data/random.h"
#include "compress/train/contrastive.h"
#include "compress/train/distill_losses.h"
#include "compress/train/teacher_terms.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <map>
#include <utility>

namespace compress {
namespace {

// Every teacher's tensors get a seed of their own.
uint64_t seed_of(uint64_t seed, size_t teacher) { return SampleRandom({seed, teacher}).next(); }

int64_t channel_dim(const at::Tensor& feature) {
  return feature.dim() == 4 ? 1 : feature.dim() - 1;
}

// A layer from the student's channels to the teacher's.
struct Adapter {
  at::Tensor weight, bias;  // undefined: none is needed

  at::Tensor operator()(const at::Tensor& feature) const {
    if (!weight.defined()) return feature;
    return feature.dim() == 4 ? at::conv2d(feature, weight, bias)
                              : at::linear(feature, weight, bias);
  }
};

Adapter make_adapter(const at::Tensor& student, const at::Tensor& teacher, AdapterKind kind,
                     uint64_t seed) {
  const bool same_channels =
      student.dim() == teacher.dim() && student.dim() >= 2 &&
      student.size(channel_dim(student)) == teacher.size(channel_dim(teacher));
  std::vector<int64_t> wanted = student.sizes().vec();
  const bool adapt = kind == AdapterKind::kAuto && student.dim() == teacher.dim() &&
                     student.dim() >= 2 && student.dim() <= 4 && !same_channels;
  if (adapt) wanted[channel_dim(student)] = teacher.size(channel_dim(teacher));
  if (teacher.sizes() != wanted) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the student's feature is [{}], the teacher's [{}]",
                            fmt::join(student.sizes(), ", "), fmt::join(teacher.sizes(), ", ")),
                {},
                kind == AdapterKind::kNone ? "let `adapter` be auto, or tap places of equal sizes"
                                           : "an adapter can change the channels only: tap places "
                                             "that are equal in all other dimensions");
  }
  if (!adapt) return {};
  // torch's initialisation of convolutions and linear layers.
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const int64_t in = student.size(channel_dim(student)), out = teacher.size(channel_dim(teacher));
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  std::vector<int64_t> sizes = {out, in};
  if (student.dim() == 4) sizes.insert(sizes.end(), {1, 1});
  const auto uniform = [&](at::IntArrayRef of) {
    return at::empty(of, at::kFloat)
        .uniform_(-bound, bound, generator)
        .to(student.device())
        .set_requires_grad(true);
  };
  Adapter adapter;
  adapter.weight = uniform(sizes);
  adapter.bias = uniform({out});
  return adapter;
}

class HintLoss final : public Loss {
 public:
  explicit HintLoss(HintOptions options) : options_(std::move(options)) {}
  std::string name() const override { return std::string(HintOptions::kName); }
  double weight() const override { return options_.weight; }
  LossWishes wishes() const override { return teacher_wishes(options_.teacher, {options_.tap}); }

  void prepare(const LossBatch& batch, uint64_t seed) override {
    adapters_.clear();
    term(batch, [&](const std::string& name, const at::Tensor& student, const at::Tensor& teacher) {
      const uint64_t own_seed = seed_of(seed, adapters_.size());
      adapters_[name] = make_adapter(student, teacher, options_.adapter, own_seed);
      return at::zeros({});
    });
  }

  at::Tensor compute(const LossBatch& batch) override {
    return term(
        batch, [&](const std::string& name, const at::Tensor& student, const at::Tensor& teacher) {
          const auto adapter = adapters_.find(name);
          COMPRESS_CHECK(adapter != adapters_.end(), "a hint is computed before it was prepared");
          return hint(adapter->second(student), teacher);
        });
  }

  std::map<std::string, at::Tensor> parameters() const override {
    std::map<std::string, at::Tensor> all;
    for (const auto& [name, adapter] : adapters_) {
      if (!adapter.weight.defined()) continue;
      all[name + ".weight"] = adapter.weight;
      all[name + ".bias"] = adapter.bias;
    }
    return all;
  }

 private:
  template <class OfPair>
  at::Tensor term(const LossBatch& batch, OfPair&& of_pair) {
    return mean_over_teachers(HintOptions::kName, options_.teacher, batch,
                              [&](const std::string& name, const Activations& teacher) {
                                return sum_over_taps(
                                    {options_.tap}, batch.student, teacher,
                                    [&](const at::Tensor& ours, const at::Tensor& theirs) {
                                      return of_pair(name, ours, theirs);
                                    });
                              });
  }

  HintOptions options_;
  std::map<std::string, Adapter> adapters_;  // by teacher
};

class ContrastiveLoss final : public Loss {
 public:
  explicit ContrastiveLoss(ContrastiveOptions options) : options_(std::move(options)) {}
  std::string name() const override { return std::string(ContrastiveOptions::kName); }
  double weight() const override { return options_.weight; }
  LossWishes wishes() const override { return teacher_wishes(options_.teacher, {options_.tap}); }

  void prepare(const LossBatch& batch, uint64_t seed) override {
    memories_.clear();
    const ContrastiveSettings settings{options_.dim, options_.negatives, options_.temperature,
                                       options_.momentum};
    for (const std::string& name : options_.teacher.names) {
      const at::Tensor& student = tap_of(batch.student, options_.tap.student);
      const at::Tensor& teacher = tap_of(teacher_of(batch, name), options_.tap.teacher);
      const int64_t samples = batch.batch.size();
      for (const at::Tensor& feature : {student, teacher}) {
        if (feature.dim() >= 2 && feature.size(0) == samples) continue;
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("with the teacher `{}`, a feature is [{}] for {} samples", name,
                                fmt::join(feature.sizes(), ", "), samples),
                    std::string(ContrastiveOptions::kName), "tap a feature [n, ...]");
      }
      memories_.try_emplace(name, settings, student.numel() / samples, teacher.numel() / samples,
                            batch.samples, seed_of(seed, memories_.size()), student.device());
    }
  }

  at::Tensor compute(const LossBatch& batch) override {
    return mean_over_teachers(ContrastiveOptions::kName, options_.teacher, batch,
                              [&](const std::string& name, const Activations& teacher) {
                                const auto memory = memories_.find(name);
                                COMPRESS_CHECK(memory != memories_.end(),
                                               "a contrast is computed before it was prepared");
                                return memory->second.step(
                                    tap_of(batch.student, options_.tap.student),
                                    tap_of(teacher, options_.tap.teacher), batch.batch.indices,
                                    batch.batch.labels);
                              });
  }

  std::map<std::string, at::Tensor> parameters() const override {
    return of_all(&ContrastiveMemory::parameters);
  }
  std::map<std::string, at::Tensor> buffers() const override {
    return of_all(&ContrastiveMemory::buffers);
  }

 private:
  using Tensors = std::map<std::string, at::Tensor>;

  Tensors of_all(Tensors (ContrastiveMemory::*part)() const) const {
    Tensors all;
    for (const auto& [name, memory] : memories_) {
      for (const auto& [key, tensor] : (memory.*part)()) all[name + "." + key] = tensor;
    }
    return all;
  }

  ContrastiveOptions options_;
  std::map<std::string, ContrastiveMemory> memories_;  // by teacher
};

}  // namespace

std::unique_ptr<Loss> make_hint_loss(const HintOptions& options) {
  return std::make_unique<HintLoss>(options);
}

std::unique_ptr<Loss> make_contrastive_loss(const ContrastiveOptions& options) {
  return std::make_unique<ContrastiveLoss>(options);
}

}  // namespace compress
