// Runs a model through plans that it makes when input sizes come up for the first time.

#include "compress/engine/plan.h"

#include <algorithm>

namespace compress {

struct PlannedModel::Entry {
  std::vector<std::vector<int64_t>> sizes;
  Plan plan;
};

PlannedModel::PlannedModel(const Model& model, PlanOptions options)
    : model_(model), options_(options) {}
PlannedModel::~PlannedModel() = default;

Plan& PlannedModel::plan_for(const std::vector<at::Tensor>& inputs) {
  std::vector<std::vector<int64_t>> sizes;
  for (const at::Tensor& input : inputs) sizes.push_back(input.sizes().vec());
  const auto known = std::find_if(plans_.begin(), plans_.end(),
                                  [&](const auto& entry) { return entry->sizes == sizes; });
  if (known != plans_.end()) return (*known)->plan;
  plans_.push_back(
      std::make_unique<Entry>(Entry{std::move(sizes), plan(model_, inputs, options_)}));
  return plans_.back()->plan;
}

std::vector<at::Tensor> PlannedModel::run(const std::vector<at::Tensor>& inputs) {
  return plan_for(inputs).run(inputs);
}

}  // namespace compress
