// Losses against labels, as free functions on tensors.

#pragma once

#include <ATen/core/Tensor.h>

namespace compress {

/// Mean cross-entropy in nats. Logits are [n, classes] with int64 labels [n], or
/// [n, length, classes] with labels [n, length]; labels of -100 do not count (torch's
/// ignore_index). Labels that are floats of the logits' sizes are probabilities. `smoothing` in
/// [0, 1] is the share of each label that is spread evenly over all classes (Szegedy et al.,
/// "Rethinking the Inception Architecture", CVPR 2016, section 7). Throws Error(kInvalidArgument)
/// naming both shapes if they do not fit.
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels, double smoothing = 0);

/// Mean squared error over all elements. The target has the output's sizes, or the same sizes but
/// for dimensions of 1 ([n] for an output of [n, 1]): nothing is broadcast. Throws
/// Error(kInvalidArgument) naming both shapes if they do not fit, or for a target of whole numbers.
at::Tensor mean_squared_error(const at::Tensor& output, const at::Tensor& target);

}  // namespace compress
