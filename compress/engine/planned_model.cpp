// Runs a model through plans that it makes when inputs of new sizes or dtypes come up.

#include "compress/engine/plan.h"

#include <algorithm>

namespace compress {

struct PlannedModel::Entry {
  struct Input {
    at::ScalarType dtype;
    std::vector<int64_t> sizes;
    bool operator==(const Input&) const = default;
  };

  static std::vector<Input> types_of(const std::vector<at::Tensor>& inputs) {
    std::vector<Input> types;
    for (const at::Tensor& input : inputs) {
      types.push_back({input.scalar_type(), input.sizes().vec()});
    }
    return types;
  }

  std::vector<Input> inputs;
  Plan plan;
};

PlannedModel::PlannedModel(const Model& model, PlanOptions options)
    : model_(model), options_(options) {}
PlannedModel::~PlannedModel() = default;

PlannedModel::Entry* PlannedModel::find(const std::vector<at::Tensor>& inputs) const {
  const std::vector<Entry::Input> types = Entry::types_of(inputs);
  const auto known = std::find_if(plans_.begin(), plans_.end(),
                                  [&](const auto& entry) { return entry->inputs == types; });
  return known == plans_.end() ? nullptr : known->get();
}

bool PlannedModel::has_plan_for(const std::vector<at::Tensor>& inputs) const {
  return find(inputs) != nullptr;
}

Plan& PlannedModel::plan_for(const std::vector<at::Tensor>& inputs) {
  if (Entry* known = find(inputs)) return known->plan;
  plans_.push_back(
      std::make_unique<Entry>(Entry{Entry::types_of(inputs), plan(model_, inputs, options_)}));
  return plans_.back()->plan;
}

std::vector<at::Tensor> PlannedModel::run(const std::vector<at::Tensor>& inputs) {
  return plan_for(inputs).run(inputs);
}

}  // namespace compress
