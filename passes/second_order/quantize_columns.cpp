// The rule that settles a column to its grids; everything else is the column solver's.

#include "passes/second_order/quantize_columns.h"

#include "compress/error.h"
#include "passes/second_order/column_solver.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace compress {
namespace {

constexpr int64_t kBlock = 128;  // columns between two products of panels; for speed only

// Rows of one group of a convolution.
class QuantizedRows {
 public:
  QuantizedRows(const at::Tensor& weight, const at::Tensor& gram, const QuantizeColumns& how,
                const at::Tensor& keep)
      : how_(how),
        weight_(weight.contiguous()),
        gram_(gram.contiguous()),
        rows_(weight.size(0)),
        columns_(weight.size(1)),
        chunks_((rows_ + kFloatLanes - 1) / kFloatLanes) {
    const bool grouped = how.granularity.kind == Granularity::Kind::kGroup;
    group_size_ = grouped ? std::min(how.granularity.group_size, columns_) : columns_;
    groups_ = (columns_ + group_size_ - 1) / group_size_;
    if (keep.defined()) keep_ = keep.contiguous();
    importance_.resize(columns_);
    const double* h = gram_.const_data_ptr<double>();
    for (int64_t i = 0; i < columns_; ++i) importance_[i] = h[i * (columns_ + 1)];
    grids_.resize(chunks_ * groups_);
  }

  // Ranges of the weights as they came; `shared`, if given, are the grids of all lanes.
  void find_static_grids(const LaneGrids* shared) {
    at::parallel_for(0, chunks_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const std::vector<float> lanes = shared ? std::vector<float>() : load(chunk);
        for (int64_t g = 0; g < groups_; ++g) {
          const int64_t first = g * group_size_, count = std::min(group_size_, columns_ - first);
          grid(chunk, g) = shared ? *shared
                                  : find_lane_grids(lanes.data() + first * kFloatLanes,
                                                    importance_.data() + first, count, how_.grid);
        }
      }
    });
  }

  // The extremes of all rows, in every lane.
  LaneRanges whole_range() const {
    LaneRanges all;
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) all.add(load(chunk).data(), columns_);
    const float low = *std::min_element(all.low, all.low + kFloatLanes);
    const float high = *std::max_element(all.high, all.high + kFloatLanes);
    std::fill_n(all.low, kFloatLanes, low);
    std::fill_n(all.high, kFloatLanes, high);
    return all;
  }
  void add_whole_errors(const LaneRanges& range, std::vector<double>& errors) const {
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      add_errors(load(chunk).data(), importance_.data(), columns_, range, how_.grid, errors);
    }
  }

  ColumnCodes quantize(bool static_grids) {
    const ColumnFactor factor(
        gram_, how_.act_order ? falling_diagonal_order(gram_) : natural_order(columns_),
        how_.damping);
    at::Tensor weight = weight_;
    ColumnCodes out;
    out.dead = static_cast<int64_t>(factor.dead().size());
    out.damping = factor.damping();
    if (out.dead > 0) weight = weight.clone();
    for (const int64_t column : factor.dead()) weight.select(1, column).zero_();
    out.codes = at::empty({rows_, columns_}, at::kByte);
    uint8_t* codes = out.codes.mutable_data_ptr<uint8_t>();

    ColumnRule rule;
    if (!static_grids) {
      rule.begin_block = [&](const ColumnBlock& block) { find_dynamic_grids(block); };
    }
    rule.settle = [&](int64_t i, int64_t chunk, const float* values, float* chosen) {
      const int64_t column = factor.order()[i];
      settle(column, chunk, values, chosen, codes);
    };
    const SolvedColumns solved = solve_columns(
        weight, factor, even_bounds(columns_, static_grids ? kBlock : group_size_), rule);
    out.weight = solved.weight;
    out.error = solved.error;
    write_grids(out);
    return out;
  }

 private:
  LaneGrids& grid(int64_t chunk, int64_t group) { return grids_[chunk * groups_ + group]; }
  int64_t chunk_rows(int64_t chunk) const {
    return std::min(kFloatLanes, rows_ - chunk * kFloatLanes);
  }

  // A chunk of rows as [columns][kFloatLanes]; zeros beyond the last row.
  std::vector<float> load(int64_t chunk) const {
    std::vector<float> lanes(columns_ * kFloatLanes);
    const float* in = weight_.const_data_ptr<float>() + chunk * kFloatLanes * columns_;
    for (int64_t i = 0; i < columns_; ++i) {
      for (int64_t r = 0; r < chunk_rows(chunk); ++r)
        lanes[i * kFloatLanes + r] = in[r * columns_ + i];
    }
    return lanes;
  }

  void find_dynamic_grids(const ColumnBlock& block) {
    const int64_t g = block.first / group_size_;
    at::parallel_for(0, chunks_, 4, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        grid(chunk, g) =
            find_lane_grids(block.lanes(chunk, block.first), importance_.data() + block.first,
                            block.end - block.first, how_.grid);
      }
    });
  }

  void settle(int64_t column, int64_t chunk, const float* values, float* chosen, uint8_t* codes) {
    const LaneGrids& grids = grid(chunk, column / group_size_);
    uint8_t lane_codes[kFloatLanes];
    round_lanes(values, grids, how_.grid.last(), chosen, lane_codes);
    const int64_t start = chunk * kFloatLanes * columns_ + column;
    const bool* keep = keep_.defined() ? keep_.const_data_ptr<bool>() : nullptr;
    for (int64_t r = 0; r < chunk_rows(chunk); ++r) {
      if (keep && !keep[start + r * columns_]) {
        chosen[r] = 0;
        lane_codes[r] = static_cast<uint8_t>(grids.zero[r]);
      }
      codes[start + r * columns_] = lane_codes[r];
    }
  }

  void write_grids(ColumnCodes& out) {
    out.scale = at::empty({rows_, groups_}, at::kFloat);
    out.zero = at::empty({rows_, groups_}, at::kByte);
    float* scale = out.scale.mutable_data_ptr<float>();
    uint8_t* zero = out.zero.mutable_data_ptr<uint8_t>();
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t g = 0; g < groups_; ++g) {
        const LaneGrids& grids = grid(row / kFloatLanes, g);
        scale[row * groups_ + g] = grids.scale[row % kFloatLanes];
        zero[row * groups_ + g] = static_cast<uint8_t>(grids.zero[row % kFloatLanes]);
      }
    }
  }

  const QuantizeColumns& how_;
  at::Tensor weight_, gram_, keep_;
  int64_t rows_, columns_, chunks_, group_size_ = 0, groups_ = 0;
  std::vector<double> importance_;
  std::vector<LaneGrids> grids_;  // of a chunk, all its groups
};

// One grid for all rows of all groups.
LaneGrids find_shared_grids(const std::vector<QuantizedRows>& parts, const GridRule& rule) {
  LaneRanges range;
  for (const QuantizedRows& part : parts) {
    const LaneRanges own = part.whole_range();
    for (int64_t lane = 0; lane < kFloatLanes; ++lane) {
      range.low[lane] = std::min(range.low[lane], own.low[lane]);
      range.high[lane] = std::max(range.high[lane], own.high[lane]);
    }
  }
  if (rule.range == GridRange::kMinmax) return lane_grids(range, 0, rule);
  std::vector<double> errors(candidates(rule) * kFloatLanes, 0.0);
  for (const QuantizedRows& part : parts) part.add_whole_errors(range, errors);
  int64_t best = 0;
  double least = 0;
  for (int64_t candidate = 0; candidate < candidates(rule); ++candidate) {
    const double* lanes = errors.data() + candidate * kFloatLanes;
    const double error = std::accumulate(lanes, lanes + kFloatLanes, 0.0);
    if (candidate == 0 || error < least) {
      least = error;
      best = candidate;
    }
  }
  return lane_grids(range, best, rule);
}

}  // namespace

ColumnCodes quantize_columns(const at::Tensor& weight, const at::Tensor& gram,
                             const QuantizeColumns& how, const at::Tensor& keep) {
  COMPRESS_CHECK(how.static_groups || !how.act_order, "groups come in their order");
  const int64_t groups = gram.size(0);
  std::vector<QuantizedRows> parts;
  parts.reserve(groups);
  for (int64_t g = 0; g < groups; ++g) {
    const at::Tensor rows = weight.chunk(groups)[g];
    parts.emplace_back(rows, gram[g], how, keep.defined() ? keep.chunk(groups)[g] : at::Tensor());
  }
  const bool whole = how.granularity.kind == Granularity::Kind::kTensor;
  const bool dynamic = how.granularity.kind == Granularity::Kind::kGroup && !how.static_groups;
  LaneGrids shared;
  if (whole) shared = find_shared_grids(parts, how.grid);

  ColumnCodes out;
  std::vector<at::Tensor> codes, scales, zeros, weights;
  for (QuantizedRows& part : parts) {
    if (!dynamic) part.find_static_grids(whole ? &shared : nullptr);
    ColumnCodes own = part.quantize(!dynamic);
    codes.push_back(own.codes);
    scales.push_back(own.scale);
    zeros.push_back(own.zero);
    weights.push_back(own.weight);
    out.error += own.error;
    out.dead += own.dead;
    out.damping = std::max(out.damping, own.damping);
  }
  out.codes = at::cat(codes);
  out.scale = at::cat(scales);
  out.zero = at::cat(zeros);
  out.weight = at::cat(weights);
  if (whole) {
    out.scale = out.scale.narrow(0, 0, 1).narrow(1, 0, 1).clone();
    out.zero = out.zero.narrow(0, 0, 1).narrow(1, 0, 1).clone();
  }
  return out;
}

}  // namespace compress
