// Where the elements of a view come from, found by making the view.

#pragma once

#include "compress/graph/channels_rules.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace compress {

/// A dimension of a view: index `k` is index `start + k * step` of the operand's dimension `from`;
/// `from` is negative where no dimension moves along with it.
struct ViewDim {
  int64_t from = -1, start = 0, step = 1;
};

struct ViewOutput {
  std::vector<ViewDim> dims;
  /// Index in each dimension of the operand at which the view begins.
  std::vector<int64_t> origin;
};

/// Makes the view that the node makes of a tensor of these sizes; one entry an output. Throws
/// NoChannelRule where the view is no selection along dimensions (a diagonal, overlapping windows).
std::vector<ViewOutput> trace_view(const Node& node, const std::vector<int64_t>& sizes,
                                   const ScalarMap& scalars);

/// Sizes, outermost first and none of them 1, into which the dimensions of both shapes can be cut:
/// [6, 4] and [2, 12] have [2, 3, 4]. None where there are none ([2, 6] and [3, 4]).
std::optional<std::vector<int64_t>> common_factors(const std::vector<int64_t>& a,
                                                   const std::vector<int64_t>& b);

}  // namespace compress
