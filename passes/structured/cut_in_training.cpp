// Cutting parameters together with what the optimizer keeps of them.

#include "passes/structured/cut_in_training.h"

#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace compress {
namespace {

// The indices that stay, of each dimension that loses some.
using Kept = std::vector<std::pair<int64_t, std::vector<int64_t>>>;

at::Tensor cut(const at::Tensor& tensor, const Kept& kept) {
  at::Tensor result = tensor;
  for (const auto& [dim, indices] : kept) {
    result = result.index_select(dim, at::tensor(indices, at::kLong).to(tensor.device()));
  }
  return result;
}

}  // namespace

int64_t cut_in_training(Training& training, ChannelPruner& pruner, double progress,
                        const ChannelPruner::ScoresOf& scores) {
  const c10::NoGradGuard no_grad;
  std::map<std::string, Kept> kept;
  pruner.before_removal = [&](const ChannelGroups& groups, const ChannelSet& set) {
    for (const Value* value : training.model.graph().named_tensors()) {
      const NamedTensor* named = training.model.find_tensor(value->name());
      if (named == nullptr || named->role != TensorRole::kParameter) continue;
      for (int64_t d = 0; d < groups.rank(value); ++d) {
        if (groups.is_cut(set, value, d)) {
          kept[value->name()].emplace_back(d, groups.kept(set, value, d));
        }
      }
    }
  };
  const int64_t count = pruner.prune(progress, scores);
  for (const auto& [name, dims] : kept) {
    if (!training.replaced) break;
    training.replaced(name, [&dims](const at::Tensor& moment) { return cut(moment, dims); });
  }
  return count;
}

}  // namespace compress
