// Contrastive representation distillation: memory banks and noise-contrastive estimation.
//
// Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, with the estimator
// of the authors' code (RepDistiller): a student's embedding of a sample is told from noise against
// the teacher's remembered embeddings of that sample and of others, and the other way round.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace compress {

/// The constants of the estimator.
struct ContrastiveSettings {
  int64_t dim = 128;          ///< of the common space
  int64_t negatives = 16384;  ///< for each sample; drawn with replacement
  double temperature = 0.07;
  double momentum = 0.5;  ///< what a remembered embedding keeps of itself when its sample comes
};

class ContrastiveMemory {
 public:
  /// `student_size` and `teacher_size` are the elements of a sample's feature, `samples` those of
  /// the training set (at least 2), which the banks have a row each for. Embeddings (linear layers
  /// into the common space) and banks get their first values from `seed`.
  ContrastiveMemory(const ContrastiveSettings& settings, int64_t student_size, int64_t teacher_size,
                    int64_t samples, uint64_t seed, c10::Device device);

  /// One step: draws negatives, computes the loss (0-dim, float) and remembers the embeddings.
  /// Features are [n, ...]; `indices` are the n samples in [0, samples). Where `labels` (int64 [n],
  /// may be undefined) have been seen, negatives are of other classes. Draws depend on the seed and
  /// on the number of steps so far only.
  at::Tensor step(const at::Tensor& student, const at::Tensor& teacher,
                  const std::vector<int64_t>& indices, const at::Tensor& labels);

  /// The same with given candidates, int64 [n, 1 + negatives] of samples, the first of each row the
  /// sample itself.
  at::Tensor step_with(const at::Tensor& student, const at::Tensor& teacher,
                       const at::Tensor& candidates);

  /// The candidates of the next step. Never the sample itself as its own negative.
  at::Tensor draw(const std::vector<int64_t>& indices) const;

  /// `student.weight`, `student.bias`, `teacher.weight`, `teacher.bias` of the embeddings.
  std::map<std::string, at::Tensor> parameters() const;
  /// `student_bank`, `teacher_bank` [samples, dim]; `normalizers` float [2], -1 before the first
  /// step (the paper's Z, fixed by it); `labels` int64 [samples], -1 unknown; `steps` int64 [].
  std::map<std::string, at::Tensor> buffers() const;

 private:
  struct Embedding {
    at::Tensor weight, bias;
    at::Tensor operator()(const at::Tensor& feature) const;  ///< unit rows [n, dim]
  };

  at::Tensor estimate(const at::Tensor& embedded, const at::Tensor& bank,
                      const at::Tensor& candidates, int64_t side);
  void remember(const at::Tensor& bank, const at::Tensor& embedded, const at::Tensor& indices);

  ContrastiveSettings settings_;
  uint64_t seed_;
  Embedding student_, teacher_;
  at::Tensor student_bank_, teacher_bank_, normalizers_;
  at::Tensor labels_, steps_;  // on the CPU
};

}  // namespace compress
