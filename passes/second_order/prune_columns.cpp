// The rule that settles a column to zeros and what the others have made of it.

#include "passes/second_order/prune_columns.h"

#include "compress/error.h"
#include "passes/second_order/column_solver.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace compress {
namespace {

constexpr float kGone = -1;  // the score of a weight that is zero already: less than any other

// Marks the `count` least of `scores`, of equal ones those that come first.
void mark_least(const std::vector<float>& scores, int64_t count, std::vector<uint8_t>& marks) {
  marks.assign(scores.size(), 0);
  if (count <= 0) return;
  std::vector<float> sorted = scores;
  std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.end());
  const float threshold = sorted[count - 1];
  int64_t ties = count - std::count_if(scores.begin(), scores.end(),
                                       [&](float score) { return score < threshold; });
  for (size_t i = 0; i < scores.size(); ++i) {
    marks[i] = scores[i] < threshold || (scores[i] == threshold && ties-- > 0);
  }
}

// Rows of one group of a convolution.
class PrunedRows {
 public:
  PrunedRows(const at::Tensor& weight, const at::Tensor& gram, const PruneColumns& how,
             const at::Tensor& keep)
      : how_(how),
        weight_(weight),
        gram_(gram.contiguous()),
        rows_(weight.size(0)),
        columns_(weight.size(1)),
        factor_(gram_, order(), how.damping) {
    if (keep.defined()) {
      keep_ = keep.contiguous();
      gone_ = keep_.numel() - keep_.sum().item<int64_t>();
    }
    kept_ = at::empty({rows_, columns_}, at::kBool);
  }

  PrunedColumns prune() {
    ColumnRule rule;
    rule.begin_block = [this](const ColumnBlock& block) {
      if (how_.m > 0) {
        choose_runs(block);
      } else {
        choose_share(block);
      }
    };
    rule.settle = [this](int64_t i, int64_t chunk, const float* values, float* chosen) {
      settle(i, chunk, values, chosen);
    };
    const SolvedColumns solved = solve_columns(weight_, factor_, bounds(), rule);
    return {solved.weight, kept_, solved.error, factor_.damping()};
  }

 private:
  // Runs of m lie along the input channels, at each position of the kernel.
  std::vector<int64_t> order() const {
    if (how_.m == 0) return natural_order(columns_);
    std::vector<int64_t> order;
    order.reserve(columns_);
    for (int64_t position = 0; position < how_.positions; ++position) {
      for (int64_t i = position; i < columns_; i += how_.positions) order.push_back(i);
    }
    return order;
  }

  std::vector<int64_t> bounds() const {
    if (how_.m == 0) return even_bounds(columns_, how_.block);
    const int64_t channels = columns_ / how_.positions;
    std::vector<int64_t> bounds;
    for (int64_t first = 0; first < columns_; first += channels) {
      for (int64_t i = 0; i < channels; i += how_.m) bounds.push_back(first + i);
    }
    bounds.push_back(columns_);
    return bounds;
  }

  bool is_gone(int64_t row, int64_t i) const {
    return keep_.defined() && !keep_.const_data_ptr<bool>()[row * columns_ + factor_.order()[i]];
  }
  // What zeroing a weight would cost.
  float score(int64_t row, int64_t i, float value) const {
    if (is_gone(row, i)) return kGone;
    const double cost = value * factor_.pivot(i);
    return static_cast<float>(cost * cost);
  }

  uint8_t& mark(int64_t row, int64_t i) { return marks_[row * width_ + i - first_]; }

  void choose_share(const ColumnBlock& block) {
    first_ = block.first;
    width_ = block.end - block.first;
    std::vector<float> scores(rows_ * width_);
    int64_t gone = 0;
    for (int64_t i = block.first; i < block.end; ++i) {
      for (int64_t row = 0; row < rows_; ++row) {
        const float value = block.lanes(row / kFloatLanes, i)[row % kFloatLanes];
        float& cost = scores[row * width_ + i - first_];
        cost = score(row, i, value);
        gone += cost == kGone;
      }
    }
    // Of the zeros that are still to be made, the block's share goes by the weights that are left.
    seen_live_ += rows_ * width_ - gone;
    const int64_t live = rows_ * columns_ - gone_;
    const double share =
        live == 0 ? 0 : static_cast<double>(seen_live_) / static_cast<double>(live);
    const auto missing = static_cast<double>(std::max<int64_t>(how_.zeros - gone_, 0));
    const auto until_here = static_cast<int64_t>(std::nearbyint(missing * share));
    mark_least(scores, gone + until_here - made_, marks_);
    made_ = until_here;
  }

  void choose_runs(const ColumnBlock& block) {
    first_ = block.first;
    width_ = block.end - block.first;
    marks_.assign(rows_ * width_, 0);
    const int64_t zeros = width_ - std::min(how_.n, width_);
    std::vector<std::pair<float, int64_t>> run(width_);
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t i = block.first; i < block.end; ++i) {
        const float value = block.lanes(row / kFloatLanes, i)[row % kFloatLanes];
        run[i - first_] = {score(row, i, value), -i};  // of equal ones the first stays
      }
      std::sort(run.begin(), run.end());
      for (int64_t i = 0; i < width_; ++i) {
        mark(row, -run[i].second) = i < zeros || run[i].first == kGone;
      }
    }
  }

  void settle(int64_t i, int64_t chunk, const float* values, float* chosen) {
    bool* kept = kept_.mutable_data_ptr<bool>() + factor_.order()[i];
    const int64_t first = chunk * kFloatLanes;
    for (int64_t lane = 0; lane < kFloatLanes; ++lane) {
      const int64_t row = first + lane;
      const bool stays = row < rows_ && mark(row, i) == 0;
      chosen[lane] = stays ? values[lane] : 0;
      if (row < rows_) kept[row * columns_] = stays;
    }
  }

  const PruneColumns& how_;
  at::Tensor weight_, gram_, keep_, kept_;
  int64_t rows_, columns_;
  ColumnFactor factor_;
  std::vector<uint8_t> marks_;     // of the block, [rows][its columns]: becomes zero
  int64_t first_ = 0, width_ = 0;  // the block's
  int64_t gone_ = 0;               // masked from the beginning
  int64_t seen_live_ = 0;          // of the others, those in the blocks so far
  int64_t made_ = 0;               // zeros among them
};

}  // namespace

PrunedColumns prune_columns(const at::Tensor& weight, const at::Tensor& gram,
                            const PruneColumns& how, const at::Tensor& keep) {
  const int64_t groups = gram.size(0);
  PrunedColumns out;
  std::vector<at::Tensor> weights, masks;
  for (int64_t g = 0; g < groups; ++g) {
    PruneColumns own = how;
    own.zeros = how.zeros * (g + 1) / groups - how.zeros * g / groups;
    const PrunedColumns part = PrunedRows(weight.chunk(groups)[g], gram[g], own,
                                          keep.defined() ? keep.chunk(groups)[g] : at::Tensor())
                                   .prune();
    weights.push_back(part.weight);
    masks.push_back(part.keep);
    out.error += part.error;
    out.damping = std::max(out.damping, part.damping);
  }
  out.weight = at::cat(weights);
  out.keep = at::cat(masks);
  return out;
}

}  // namespace compress
