// Rows are independent until their cheapest removals are chosen: first the trace of each, then the
// choice, then least squares for what is left.

#include "passes/second_order/prune_exactly.h"

#include "compress/error.h"
#include "compress/multiversion.h"
#include "passes/second_order/cholesky.h"
#include "passes/second_order/damping.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

namespace compress {
namespace {

// In which order the weights of a row go, and what each costs: how much tr(D H D^T) grows.
struct RemovalTrace {
  std::vector<int64_t> columns;
  std::vector<double> losses;
};

constexpr double kNever = std::numeric_limits<double>::infinity();

// The damped Gram matrix of one group and its inverse, [size][size] each.
class DampedGram {
 public:
  DampedGram(const at::Tensor& gram, double damping)
      : size_(gram.size(0)), damping_(gram, damping) {
    while (!invert(gram.const_data_ptr<double>())) damping_.raise();
  }
  int64_t size() const { return size_; }
  double damping() const { return damping_.share(); }
  double at(int64_t i, int64_t j) const { return matrix_[i * size_ + j]; }
  const std::vector<double>& inverse() const { return inverse_; }

 private:
  bool invert(const double* elements) {
    matrix_.assign(elements, elements + size_ * size_);
    CholeskyFactor factor(size_);
    for (int64_t i = 0; i < size_; ++i) {
      double& diagonal = matrix_[i * (size_ + 1)];
      diagonal = damping_(diagonal);
      for (int64_t j = i; j < size_; ++j) factor.at(i, j) = matrix_[i * size_ + j];
    }
    if (!factor.factor()) return false;
    inverse_.assign(size_ * size_, 0);
    at::parallel_for(0, size_, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        inverse_[i * (size_ + 1)] = 1;
        factor.solve(inverse_.data() + i * size_);
      }
    });
    return true;
  }

  int64_t size_;
  Damping damping_;
  std::vector<double> matrix_, inverse_;
};

COMPRESS_MULTIVERSION
void subtract_multiple(double* target, const double* source, double factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] -= factor * source[i];
}

// What is left of a row: weights, the inverse of their Gram matrix (lower triangle of
// [size][size]), and which columns they are.
class Row {
 public:
  Row(std::vector<double> weights, std::vector<double> inverse)
      : weights_(std::move(weights)), inverse_(std::move(inverse)) {
    size_ = alive_ = static_cast<int64_t>(weights_.size());
    for (int64_t i = 0; i < size_; ++i) columns_.push_back(i);
    pivot_.resize(size_);
  }

  /// Removes the weight of least cost among those that `may_go` allows; false if there is none.
  /// Those that `keep` (null: all stay) lacks are zero already: they go first and cost nothing.
  bool remove_cheapest(const std::function<bool(int64_t)>& may_go, const bool* keep,
                       RemovalTrace& trace) {
    int64_t chosen = -1;
    double least = kNever;
    for (int64_t i = 0; i < size_; ++i) {
      const int64_t column = columns_[i];
      if (column < 0 || !may_go(column)) continue;
      const bool gone = keep != nullptr && !keep[column];
      const double cost = gone ? -1 : weights_[i] * weights_[i] / inverse_[i * (size_ + 1)];
      if (cost < least) {
        least = cost;
        chosen = i;
      }
    }
    if (chosen < 0) return false;
    trace.columns.push_back(columns_[chosen]);
    trace.losses.push_back(std::max(least, 0.0));
    remove(chosen);
    return true;
  }

 private:
  void remove(int64_t q) {
    const double diagonal = inverse_[q * (size_ + 1)];
    for (int64_t i = 0; i < size_; ++i) {
      pivot_[i] = i <= q ? inverse_[q * size_ + i] : inverse_[i * size_ + q];
    }
    subtract_multiple(weights_.data(), pivot_.data(), weights_[q] / diagonal, size_);
    columns_[q] = -1;
    weights_[q] = 0;
    --alive_;
    for (int64_t i = 0; i < size_; ++i) {
      if (columns_[i] < 0) continue;
      subtract_multiple(inverse_.data() + i * size_, pivot_.data(), pivot_[i] / diagonal, i + 1);
    }
    if (4 * alive_ < 3 * size_) compact();
  }

  // Forgets the removed rows and columns, which are all zeros now.
  void compact() {
    std::vector<int64_t> left;
    for (int64_t i = 0; i < size_; ++i) {
      if (columns_[i] >= 0) left.push_back(i);
    }
    for (int64_t i = 0; i < alive_; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        inverse_[i * alive_ + j] = inverse_[left[i] * size_ + left[j]];
      }
      weights_[i] = weights_[left[i]];
      columns_[i] = columns_[left[i]];
    }
    size_ = alive_;
  }

  int64_t size_ = 0, alive_ = 0;
  std::vector<double> weights_, inverse_, pivot_;
  std::vector<int64_t> columns_;  // of the weight; -1: removed
};

class ExactPruner {
 public:
  ExactPruner(const at::Tensor& weight, const at::Tensor& gram, const PruneColumns& how,
              const at::Tensor& keep)
      : how_(how),
        weight_(weight.contiguous()),
        rows_(weight.size(0)),
        columns_(weight.size(1)),
        per_group_(rows_ / gram.size(0)) {
    if (keep.defined()) keep_ = keep.contiguous();
    const at::Tensor grams = gram.contiguous();
    for (int64_t g = 0; g < grams.size(0); ++g) grams_.emplace_back(grams[g], how.damping);
  }

  PrunedColumns prune() {
    std::vector<RemovalTrace> traces(rows_);
    at::parallel_for(0, rows_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) traces[row] = trace(row);
    });
    const std::vector<int64_t> counts = how_.m > 0 ? all_of(traces) : cheapest(traces);
    PrunedColumns out{weight_.clone(), at::zeros({rows_, columns_}, at::kBool), 0, 0};
    std::vector<double> errors(rows_, 0);
    at::parallel_for(0, rows_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        for (int64_t i = 0; i < counts[row]; ++i) errors[row] += traces[row].losses[i];
        fit(row, traces[row], counts[row], out);
      }
    });
    for (const double error : errors) out.error += error;
    for (const DampedGram& gram : grams_) out.damping = std::max(out.damping, gram.damping());
    return out;
  }

 private:
  const DampedGram& gram_of(int64_t row) const { return grams_[row / per_group_]; }
  const float* weights_of(int64_t row) const {
    return weight_.const_data_ptr<float>() + row * columns_;
  }

  RemovalTrace trace(int64_t row) const {
    RemovalTrace trace;
    Row left(std::vector<double>(weights_of(row), weights_of(row) + columns_),
             gram_of(row).inverse());
    const bool* keep = keep_.defined() ? keep_.const_data_ptr<bool>() + row * columns_ : nullptr;
    if (how_.m == 0) {
      while (left.remove_cheapest([](int64_t) { return true; }, keep, trace)) {
      }
      return trace;
    }
    // Runs of m input channels, at each position of the kernel.
    const int64_t channels = columns_ / how_.positions;
    const auto run_of = [&](int64_t column) {
      return column / how_.positions / how_.m * how_.positions + column % how_.positions;
    };
    std::vector<int64_t> may_go((channels + how_.m - 1) / how_.m * how_.positions, -how_.n);
    for (int64_t column = 0; column < columns_; ++column) ++may_go[run_of(column)];
    const auto allowed = [&](int64_t column) {
      return may_go[run_of(column)] > 0 || (keep != nullptr && !keep[column]);
    };
    while (left.remove_cheapest(allowed, keep, trace)) --may_go[run_of(trace.columns.back())];
    return trace;
  }

  std::vector<int64_t> all_of(const std::vector<RemovalTrace>& traces) const {
    std::vector<int64_t> counts;
    for (const RemovalTrace& trace : traces) {
      counts.push_back(static_cast<int64_t>(trace.columns.size()));
    }
    return counts;
  }

  // How many removals of each row are among the cheapest, those already zero included.
  std::vector<int64_t> cheapest(const std::vector<RemovalTrace>& traces) const {
    std::vector<int64_t> counts(rows_, 0);
    int64_t zeros = how_.zeros;
    if (keep_.defined()) {
      for (int64_t row = 0; row < rows_; ++row) {
        const bool* keep = keep_.const_data_ptr<bool>() + row * columns_;
        counts[row] = std::count(keep, keep + columns_, false);
        zeros -= counts[row];
      }
    }
    using Next = std::pair<double, int64_t>;
    std::priority_queue<Next, std::vector<Next>, std::greater<>> queue;
    const auto enqueue = [&](int64_t row) {
      if (counts[row] < columns_) queue.emplace(traces[row].losses[counts[row]], row);
    };
    for (int64_t row = 0; row < rows_; ++row) enqueue(row);
    for (; zeros > 0 && !queue.empty(); --zeros) {
      const int64_t row = queue.top().second;
      queue.pop();
      ++counts[row];
      enqueue(row);
    }
    return counts;
  }

  // Least squares for what is left: w_K + (H_KK)^-1 H_KR w_R, K kept, R removed.
  void fit(int64_t row, const RemovalTrace& trace, int64_t count, PrunedColumns& out) const {
    float* weights = out.weight.mutable_data_ptr<float>() + row * columns_;
    bool* kept = out.keep.mutable_data_ptr<bool>() + row * columns_;
    std::fill_n(kept, columns_, true);
    for (int64_t i = 0; i < count; ++i) kept[trace.columns[i]] = false;
    if (count == 0) return;
    std::vector<int64_t> left;
    for (int64_t column = 0; column < columns_; ++column) {
      if (kept[column]) left.push_back(column);
    }
    const auto size = static_cast<int64_t>(left.size());
    const DampedGram& gram = gram_of(row);
    CholeskyFactor factor(size);
    std::vector<double> change(size, 0);
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = i; j < size; ++j) factor.at(i, j) = gram.at(left[i], left[j]);
      for (int64_t r = 0; r < count; ++r) {
        const int64_t removed = trace.columns[r];
        change[i] += gram.at(left[i], removed) * weights_of(row)[removed];
      }
    }
    COMPRESS_CHECK(factor.factor(), "a part of a positive definite matrix is one");
    factor.solve(change.data());
    for (int64_t i = 0; i < size; ++i) {
      weights[left[i]] = static_cast<float>(weights_of(row)[left[i]] + change[i]);
    }
    for (int64_t i = 0; i < count; ++i) weights[trace.columns[i]] = 0;
  }

  const PruneColumns& how_;
  at::Tensor weight_, keep_;
  int64_t rows_, columns_, per_group_;
  std::vector<DampedGram> grams_;
};

}  // namespace

PrunedColumns prune_exactly(const at::Tensor& weight, const at::Tensor& gram,
                            const PruneColumns& how, const at::Tensor& keep) {
  return ExactPruner(weight, gram, how, keep).prune();
}

}  // namespace compress
