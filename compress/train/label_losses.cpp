// Losses against labels, as free functions on tensors.

#include "compress/train/label_losses.h"

#include "compress/error.h"

#include <ATen/core/Reduction.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/mse_loss.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

namespace compress {
namespace {

std::vector<int64_t> without_ones(at::IntArrayRef sizes) {
  std::vector<int64_t> kept;
  for (const int64_t size : sizes) {
    if (size != 1) kept.push_back(size);
  }
  return kept;
}

}  // namespace

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels, double smoothing) {
  constexpr int64_t kIgnored = -100;
  const bool probabilities = labels.is_floating_point();
  const bool fit = logits.dim() >= 2 && logits.dim() <= 3 &&
                   labels.sizes() ==
                       (probabilities ? logits.sizes() : logits.sizes().slice(0, logits.dim() - 1));
  if (!fit) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("cross-entropy needs a row of logits for each label: logits are [{}], "
                            "labels [{}]",
                            fmt::join(logits.sizes(), ", "), fmt::join(labels.sizes(), ", ")));
  }
  const int64_t classes = logits.size(-1);
  const at::Tensor rows =
      logits.reshape({-1, classes})
          .to(at::isReducedFloatingType(logits.scalar_type()) ? at::kFloat : logits.scalar_type());
  const at::Tensor targets =
      probabilities ? labels.reshape({-1, classes}).to(rows.device(), rows.scalar_type())
                    : labels.reshape({-1}).to(rows.device(), at::kLong);
  return at::cross_entropy_loss(rows, targets, {}, at::Reduction::Mean, kIgnored, smoothing);
}

at::Tensor mean_squared_error(const at::Tensor& output, const at::Tensor& target) {
  if (!target.is_floating_point()) {
    throw Error(ErrorCode::kInvalidArgument, "the targets of a squared error are whole numbers", {},
                "give labels as floats, or take cross_entropy for classes");
  }
  if (without_ones(output.sizes()) != without_ones(target.sizes())) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the model's output is [{}], its target [{}]",
                            fmt::join(output.sizes(), ", "), fmt::join(target.sizes(), ", ")));
  }
  const at::ScalarType type =
      at::isReducedFloatingType(output.scalar_type()) ? at::kFloat : output.scalar_type();
  return at::mse_loss(output.to(type), target.reshape(output.sizes()).to(output.device(), type));
}

}  // namespace compress
