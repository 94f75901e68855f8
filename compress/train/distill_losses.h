// Losses that compare a student with its teacher, as free functions on tensors.
//
// Definitions are those of the code that the published numbers come from (RepDistiller, mdistiller,
// attention-transfer, torchdistill); where a paper's formula differs, the comment says so.
// Gradients flow into the student's tensors, and into a teacher's where it asks for them. Tensors
// of half precision are computed with in float. All functions return a 0-dim tensor and throw
// Error(kInvalidArgument) naming both shapes if the two sides do not fit together.

#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <vector>

namespace compress {

/// What the sum of a divergence is divided by.
enum class KlReduction {
  kBatchMean,  ///< the number of predictions: the mathematical definition
  kMean,       ///< predictions x classes: torch's KLDivLoss by default, as Polino et al. ran it
};
inline std::vector<std::string_view> option_names(KlReduction) { return {"batch_mean", "mean"}; }

/// Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2:
/// T^2 KL(softmax(teacher / T) || softmax(student / T)). Logits are [n, classes] or
/// [n, length, classes], each row of which is a prediction. T > 0.
at::Tensor kd_logits(const at::Tensor& student, const at::Tensor& teacher, double temperature,
                     KlReduction reduction = KlReduction::kBatchMean);

/// Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, eq. 7: alpha TCKD + beta NCKD, both
/// times T^2 and averaged over predictions. TCKD is the divergence between (p of the label's class,
/// p of all others), NCKD that among the other classes. `labels` are int64, one for each row of the
/// logits, in [0, classes).
at::Tensor decoupled_kd(const at::Tensor& student, const at::Tensor& teacher,
                        const at::Tensor& labels, double alpha, double beta, double temperature);

/// Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, eq. 2 without the factor 1/2, as
/// run since: the mean squared difference of two features of equal sizes.
at::Tensor hint(const at::Tensor& student, const at::Tensor& teacher);

/// How two attention maps are compared, each flattened and divided by its 2-norm.
enum class AttentionForm {
  kSquared,  ///< mean over samples and places of the squared difference: the published code
  kNorm,  ///< mean over samples of the 2-norm of the difference: the paper's eq. 2 without beta/2
};
inline std::vector<std::string_view> option_names(AttentionForm) { return {"squared", "norm"}; }

/// Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017: maps are means over
/// channels of the squared activations. Features are [n, c, h, w], whose larger map is pooled to
/// the size of the smaller, or [n, length, width]; the number of channels may differ.
at::Tensor attention_transfer(const at::Tensor& student, const at::Tensor& teacher,
                              AttentionForm form = AttentionForm::kSquared);

/// Tung & Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, eq. 4: the squared
/// Frobenius norm of the difference between the two [n, n] matrices F F^T with rows of norm 1,
/// divided by n^2. F is [n, ...] flattened; sizes of a sample may differ.
at::Tensor similarity_preserving(const at::Tensor& student, const at::Tensor& teacher);

/// Park et al., "Relational Knowledge Distillation", CVPR 2019, eq. 7: the mean Huber loss (delta
/// 1) over all n^2 pairs between distances of samples, each side divided by the mean of its
/// distances that are not 0. Features are [n, ...]; sizes of a sample may differ. 0 for a single
/// sample.
at::Tensor relational_distance(const at::Tensor& student, const at::Tensor& teacher);

/// The same paper, eq. 10: the mean Huber loss over all n^3 triples between the cosines of the
/// angles that two samples form at a third. Takes memory of n^2 times the size of a sample.
at::Tensor relational_angle(const at::Tensor& student, const at::Tensor& teacher);

/// The squared error of a feature relative to the teacher's energy:
/// ||student - teacher||^2 / ||teacher||^2 over all elements. Equal sizes.
at::Tensor feature_error(const at::Tensor& student, const at::Tensor& teacher);

/// The mean of 1 - cosine between vectors: rows of [n, length, width], else whole samples of
/// [n, ...]. Equal sizes. (DistilBERT, Sanh et al. 2019, section 3.)
at::Tensor cosine_error(const at::Tensor& student, const at::Tensor& teacher);

}  // namespace compress
