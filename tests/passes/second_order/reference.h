// The obvious way through the columns of a weight: after each, least squares for all that are left.

#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

namespace compress::testing {

/// Random inputs whose columns depend on one another, and their Gram matrix [columns, columns].
inline at::Tensor correlated_gram(int64_t columns, int64_t rows, uint64_t seed,
                                  double correlation = 0.3) {
  at::manual_seed(seed);
  const at::Tensor mix =
      at::eye(columns, at::kDouble) + correlation * at::randn({columns, columns}, at::kDouble);
  const at::Tensor x = at::randn({rows, columns}, at::kDouble).matmul(mix);
  return x.t().matmul(x).div(static_cast<double>(rows));
}

/// tr(D H D^T).
inline double output_error(const at::Tensor& weight, const at::Tensor& changed,
                           const at::Tensor& gram) {
  const at::Tensor d = (weight.to(at::kDouble) - changed.to(at::kDouble));
  return d.matmul(gram).mul(d).sum().item<double>();
}

/// The optimum of the columns `left` of `weight` (double) when the columns `settled` have become
/// those of `chosen`: minimises tr(D H D^T) over the columns left.
inline at::Tensor least_squares(const at::Tensor& weight, const at::Tensor& chosen,
                                const at::Tensor& gram, const at::Tensor& settled,
                                const at::Tensor& left) {
  const at::Tensor missing = weight.index_select(1, settled) - chosen.index_select(1, settled);
  const at::Tensor cross = gram.index_select(0, settled).index_select(1, left);
  const at::Tensor own = gram.index_select(0, left).index_select(1, left);
  return weight.index_select(1, left) +
         at::linalg_solve(own, missing.matmul(cross), /*left=*/false);
}

/// `choose(column, optimum)` settles one column after the other, in `order`.
inline at::Tensor solve_reference(
    const at::Tensor& weight, const at::Tensor& gram, const std::vector<int64_t>& order,
    const std::function<at::Tensor(int64_t, const at::Tensor&)>& choose) {
  const at::Tensor exact = weight.to(at::kDouble), all = at::tensor(order);
  at::Tensor chosen = exact.clone();
  for (int64_t i = 0; i < all.numel(); ++i) {
    const at::Tensor optimum =
        i == 0 ? exact.index_select(1, all)
               : least_squares(exact, chosen, gram, all.slice(0, 0, i), all.slice(0, i));
    chosen.select(1, order[i]).copy_(choose(order[i], optimum.select(1, 0)));
  }
  return chosen;
}

}  // namespace compress::testing
