// Rows do not depend on one another, so a chunk of them goes through all columns while it is in
// cache, on one thread.

#include "passes/second_order/column_solver.h"

#include "compress/error.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace compress {
namespace {

constexpr int64_t kSettledDepth = 256;  // settled columns that stay in the first cache meanwhile

class Solver {
 public:
  Solver(const at::Tensor& weight, const ColumnFactor& factor, const std::vector<int64_t>& bounds,
         const ColumnRule& rule)
      : factor_(factor), bounds_(bounds), rule_(rule), rows_(weight.size(0)) {
    COMPRESS_CHECK(weight.size(1) == factor.columns() && weight.scalar_type() == at::kFloat,
                   "the weight is float and has the columns of the factor");
    weight_ = weight.contiguous();
    out_ = at::empty({rows_, columns()}, weight_.options());
    chunks_ = (rows_ + kFloatLanes - 1) / kFloatLanes;
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      widest_ = std::max(widest_, bounds[i + 1] - bounds[i]);
    }
    widest_ += 2 * kPanelColumns;  // panels that stick out on either side
    changes_.resize(chunks_ * columns() * kFloatLanes);
    values_.resize(chunks_ * widest_ * kFloatLanes);
    errors_.resize(chunks_ * kFloatLanes);
  }

  SolvedColumns run() {
    each_chunk([&](int64_t chunk) { load(chunk); });
    if (rule_.begin_block) {
      shown_.resize(values_.size());
      for (size_t b = 0; b + 1 < bounds_.size(); ++b) {
        each_chunk([&](int64_t chunk) {
          advance(chunk, b);
          look_ahead(chunk, b);
        });
        const float* optimum = shown_.data() + bounds_[b] % kPanelColumns * kFloatLanes;
        rule_.begin_block({bounds_[b], bounds_[b + 1], rows_, optimum, widest_ * kFloatLanes});
        each_chunk([&](int64_t chunk) { settle(chunk, b); });
      }
    } else {
      each_chunk([&](int64_t chunk) {
        for (size_t b = 0; b + 1 < bounds_.size(); ++b) {
          advance(chunk, b);
          settle(chunk, b);
        }
      });
    }
    SolvedColumns solved{out_, 0};
    for (int64_t row = 0; row < rows_; ++row) solved.error += errors_[row];
    return solved;
  }

 private:
  int64_t columns() const { return factor_.columns(); }

  template <class Work>
  void each_chunk(const Work& work) {
    const int64_t grain = std::max<int64_t>(1, (1 << 14) / (columns() * kFloatLanes));
    at::parallel_for(0, chunks_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) work(chunk);
    });
  }

  // Of a settled column what was chosen less the weight; of another one the weight.
  float* change(int64_t chunk, int64_t column) {
    return changes_.data() + (chunk * columns() + column) * kFloatLanes;
  }
  // The optimum of a column of the block, whose first panel may begin before the block.
  float* values(int64_t chunk, size_t block, int64_t column) {
    const int64_t begin = bounds_[block] / kPanelColumns * kPanelColumns;
    return values_.data() + (chunk * widest_ + column - begin) * kFloatLanes;
  }
  int64_t chunk_rows(int64_t chunk) const {
    return std::min(kFloatLanes, rows_ - chunk * kFloatLanes);
  }

  void load(int64_t chunk) {
    const float* in = weight_.const_data_ptr<float>() + chunk * kFloatLanes * columns();
    for (int64_t i = 0; i < columns(); ++i) {
      float* lanes = change(chunk, i);
      const int64_t column = factor_.order()[i];
      for (int64_t r = 0; r < chunk_rows(chunk); ++r) lanes[r] = in[r * columns() + column];
    }
  }

  // Adds to the columns of a block what the settled ones before it ask for.
  void advance(int64_t chunk, size_t block) {
    const int64_t first = bounds_[block], end = bounds_[block + 1];
    std::copy_n(change(chunk, first), (end - first) * kFloatLanes, values(chunk, block, first));
    const int64_t first_panel = first / kPanelColumns;
    const int64_t last_panel = (end - 1) / kPanelColumns;
    for (int64_t k = 0; k < first; k += kSettledDepth) {
      const int64_t count = std::min(kSettledDepth, first - k);
      for (int64_t panel = first_panel; panel <= last_panel; ++panel) {
        subtract_products(factor_.panel(panel) + k * kPanelColumns, kPanelColumns, change(chunk, k),
                          count, values(chunk, block, panel * kPanelColumns));
      }
    }
  }

  // Goes through the columns of a block: `values` are those of its first panel, which `advance`
  // has made, `changes` the weights of its columns, which become what was chosen less the weight.
  // `choose(column, optimum, chosen)` may read the optimum of one column after the other.
  template <class Choose>
  void sweep(size_t block, float* values, float* changes, const Choose& choose) {
    const int64_t first = bounds_[block], end = bounds_[block + 1];
    const int64_t begin = first / kPanelColumns * kPanelColumns;
    for (int64_t i = first; i < end; ++i) {
      const int64_t panel = i / kPanelColumns;
      float* optimum = values + (i - begin) * kFloatLanes;
      if (i % kPanelColumns == 0 && i > first) {
        subtract_products(factor_.panel(panel) + first * kPanelColumns, kPanelColumns, changes,
                          i - first, optimum);
      }
      alignas(64) float chosen[kFloatLanes];
      choose(i, optimum, chosen);
      float* change = changes + (i - first) * kFloatLanes;
      for (int64_t lane = 0; lane < kFloatLanes; ++lane) change[lane] = chosen[lane] - change[lane];
      for (int64_t j = i + 1; j < std::min(end, (panel + 1) * kPanelColumns); ++j) {
        const float ratio = factor_.ratio(i, j);
        float* later = values + (j - begin) * kFloatLanes;
        for (int64_t lane = 0; lane < kFloatLanes; ++lane) later[lane] -= ratio * change[lane];
      }
    }
  }

  // The optimum of all columns of a block together: each is where those before it leave it.
  void look_ahead(int64_t chunk, size_t block) {
    const int64_t first = bounds_[block], count = bounds_[block + 1] - first;
    const float* weights = change(chunk, first);
    std::vector<float> changes(weights, weights + count * kFloatLanes);
    float* shown = shown_.data() + chunk * widest_ * kFloatLanes;
    std::copy_n(values_.data() + chunk * widest_ * kFloatLanes, widest_ * kFloatLanes, shown);
    sweep(block, shown, changes.data(), [](int64_t, const float* optimum, float* chosen) {
      std::copy_n(optimum, kFloatLanes, chosen);
    });
  }

  void settle(int64_t chunk, size_t block) {
    double* errors = errors_.data() + chunk * kFloatLanes;
    float* values = values_.data() + chunk * widest_ * kFloatLanes;
    sweep(block, values, change(chunk, bounds_[block]),
          [&](int64_t i, const float* optimum, float* chosen) {
            rule_.settle(i, chunk, optimum, chosen);
            const double pivot = factor_.pivot(i);
            for (int64_t lane = 0; lane < kFloatLanes; ++lane) {
              const double error = pivot * (optimum[lane] - chosen[lane]);
              errors[lane] += error * error;
            }
            store(chunk, i, chosen);
          });
  }

  void store(int64_t chunk, int64_t i, const float* chosen) {
    float* out = out_.mutable_data_ptr<float>() + chunk * kFloatLanes * columns();
    const int64_t column = factor_.order()[i];
    for (int64_t r = 0; r < chunk_rows(chunk); ++r) out[r * columns() + column] = chosen[r];
  }

  const ColumnFactor& factor_;
  const std::vector<int64_t>& bounds_;
  const ColumnRule& rule_;
  int64_t rows_, chunks_ = 0, widest_ = 0;
  at::Tensor weight_, out_;
  std::vector<float> changes_, values_;
  std::vector<float> shown_;    // what `begin_block` sees, laid out like `values_`
  std::vector<double> errors_;  // of each row
};

}  // namespace

SolvedColumns solve_columns(const at::Tensor& weight, const ColumnFactor& factor,
                            const std::vector<int64_t>& bounds, const ColumnRule& rule) {
  return Solver(weight, factor, bounds, rule).run();
}

std::vector<int64_t> even_bounds(int64_t columns, int64_t block) {
  std::vector<int64_t> bounds;
  for (int64_t first = 0; first < columns; first += block) bounds.push_back(first);
  bounds.push_back(columns);
  return bounds;
}

}  // namespace compress
