// Runs a model through plans that it makes when input sizes come up for the first time.

#include "compress/engine/plan.h"

#include <algorithm>

namespace compress {

namespace {

std::vector<std::vector<int64_t>> sizes_of(const std::vector<at::Tensor>& inputs) {
  std::vector<std::vector<int64_t>> sizes;
  for (const at::Tensor& input : inputs) sizes.push_back(input.sizes().vec());
  return sizes;
}

}  // namespace

struct PlannedModel::Entry {
  std::vector<std::vector<int64_t>> sizes;
  Plan plan;
};

PlannedModel::PlannedModel(const Model& model, PlanOptions options)
    : model_(model), options_(options) {}
PlannedModel::~PlannedModel() = default;

PlannedModel::Entry* PlannedModel::find(const std::vector<at::Tensor>& inputs) const {
  const std::vector<std::vector<int64_t>> sizes = sizes_of(inputs);
  const auto known = std::find_if(plans_.begin(), plans_.end(),
                                  [&](const auto& entry) { return entry->sizes == sizes; });
  return known == plans_.end() ? nullptr : known->get();
}

bool PlannedModel::has_plan_for(const std::vector<at::Tensor>& inputs) const {
  return find(inputs) != nullptr;
}

Plan& PlannedModel::plan_for(const std::vector<at::Tensor>& inputs) {
  if (Entry* known = find(inputs)) return known->plan;
  plans_.push_back(
      std::make_unique<Entry>(Entry{sizes_of(inputs), plan(model_, inputs, options_)}));
  return plans_.back()->plan;
}

std::vector<at::Tensor> PlannedModel::run(const std::vector<at::Tensor>& inputs) {
  return plan_for(inputs).run(inputs);
}

}  // namespace compress
