// What is added to the diagonal of a Gram matrix so that it can be inverted.

#pragma once

#include <ATen/core/Tensor.h>

namespace compress {

/// A share of the mean diagonal (GPTQ's `percdamp`), raised until the matrix is positive definite.
class Damping {
 public:
  /// `gram`: double [columns, columns].
  Damping(const at::Tensor& gram, double share);

  double share() const { return share_; }
  /// The damped value of a diagonal element. A column without inputs, whose element is 0, gets the
  /// mean of the others'; 1 if there are none.
  double operator()(double diagonal) const {
    return (diagonal == 0 ? mean_ : diagonal) + share_ * mean_;
  }
  /// To ten times as much, and at least 1e-6. Throws Error(kRunFailed) if that cannot help: an
  /// element of the matrix is not finite.
  void raise();

 private:
  at::Tensor gram_;
  double share_, mean_ = 1;
};

}  // namespace compress
