// Both kinds of variables live on the matrix [rows, columns] of the weight.

#include "passes/quantize/weight_variable.h"

#include "passes/quantize/adaptive_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <utility>

namespace compress {
namespace {

at::Tensor matrix_of(const RoundedWeight& weight) {
  return as_matrix(weight.elements.detach(), weight.channel_dim).to(at::kFloat).contiguous();
}

at::Tensor mask_of(const RoundedWeight& weight) {
  return weight.mask.defined() ? as_matrix(weight.mask, weight.channel_dim).contiguous()
                               : at::Tensor();
}

at::Tensor variable(const at::Tensor& start) {
  return start.detach().clone().set_requires_grad(true);
}

// Rounds, with the gradient of the identity.
at::Tensor round_through(const at::Tensor& x) { return x + (x.detach().round() - x.detach()); }

class MatrixVariable : public WeightVariable {
 public:
  explicit MatrixVariable(const RoundedWeight& weight) : weight_(weight), mask_(mask_of(weight)) {}

  at::Tensor effective() const final {
    at::Tensor values = decoded();
    if (mask_.defined()) values = values * mask_;
    return from_matrix(values, weight_.elements.sizes().vec(), weight_.channel_dim)
        .to(weight_.elements.scalar_type());
  }

  QuantizedTensor result() const final {
    RoundedWeight with = weight_;
    with.grid = grid();
    return with.quantized(codes());
  }

 protected:
  virtual at::Tensor decoded() const = 0;  // [rows, columns]
  virtual at::Tensor codes() const = 0;
  virtual UniformGrid grid() const { return weight_.grid; }
  std::string name(const char* what) const { return weight_.name + "/" + what; }

  RoundedWeight weight_;
  at::Tensor mask_;
};

class RoundingVariable final : public MatrixVariable {
 public:
  explicit RoundingVariable(const RoundedWeight& weight) : MatrixVariable(weight) {
    const at::Tensor steps = matrix_of(weight) / weight.grid.scale;
    down_ = steps.floor();
    logits_ = variable(rounding_logits(steps - down_));
    down_ = down_ + weight.grid.zero;
  }

  std::vector<OptimizedParameter> parameters() const override {
    return {{name("rounding"), logits_}};
  }
  at::Tensor penalty(double beta) const override {
    return rounding_penalty(rectified_sigmoid(logits_), beta);
  }
  int64_t undecided() const override {
    const at::Tensor share = rectified_sigmoid(logits_.detach());
    return share.gt(0.01).logical_and(share.lt(0.99)).sum().item<int64_t>();
  }

 private:
  at::Tensor decoded() const override {
    const UniformGrid& grid = weight_.grid;
    return ((down_ + rectified_sigmoid(logits_)).clamp(0, grid.last()) - grid.zero) * grid.scale;
  }
  at::Tensor codes() const override {
    return (down_ + logits_.detach().ge(0)).clamp(0, weight_.grid.last());
  }

  at::Tensor down_, logits_;  // the code below, and which way to go from there
};

class FreeVariable final : public MatrixVariable {
 public:
  FreeVariable(const RoundedWeight& weight, double scale_rate)
      : MatrixVariable(weight), scale_rate_(scale_rate) {
    steps_ = variable(matrix_of(weight) / weight.grid.scale);
    stretch_ = variable(at::ones_like(weight.grid.scale));
  }

  std::vector<OptimizedParameter> parameters() const override {
    return {{name("elements"), steps_}, {name("scales"), stretch_, scale_rate_}};
  }
  at::Tensor penalty(double) const override { return {}; }
  int64_t undecided() const override { return 0; }

 private:
  at::Tensor ratio() const { return stretch_.clamp_min(kLeast); }
  at::Tensor decoded() const override {
    const UniformGrid& start = weight_.grid;
    const at::Tensor codes = (round_through(steps_ / ratio()) + start.zero).clamp(0, start.last());
    return (codes - start.zero) * (ratio() * start.scale);
  }
  at::Tensor codes() const override {
    return nearest_codes(steps_.detach(), {weight_.grid.bits, weight_.grid.symmetric,
                                           ratio().detach(), weight_.grid.zero});
  }
  UniformGrid grid() const override {
    UniformGrid grid = weight_.grid;
    grid.scale = grid.scale * ratio().detach();
    return grid;
  }

  static constexpr double kLeast = 0.01;  // a scale stays positive
  double scale_rate_;
  at::Tensor steps_, stretch_;  // elements in first scales, and scales in first scales
};

}  // namespace

QuantizedTensor RoundedWeight::quantized(const at::Tensor& codes) const {
  const at::Tensor keep = mask_of(*this);
  return with_codes(keep.defined() ? at::where(keep, codes, grid.zero) : codes, grid,
                    elements.sizes().vec(), channel_dim, elements.scalar_type());
}

QuantizedTensor RoundedWeight::nearest() const {
  return quantized(nearest_codes(matrix_of(*this), grid));
}

std::unique_ptr<WeightVariable> rounding_variable(const RoundedWeight& weight) {
  return std::make_unique<RoundingVariable>(weight);
}

std::unique_ptr<WeightVariable> free_variable(const RoundedWeight& weight, double scale_rate) {
  return std::make_unique<FreeVariable>(weight, scale_rate);
}

}  // namespace compress
