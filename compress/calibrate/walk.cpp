// Each stretch between two stops is extracted as a model of its own and run on every batch.

#include "compress/calibrate/walk.h"

#include "compress/error.h"
#include "compress/graph/extract.h"

#include <ATen/ops/isfinite.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <unordered_set>
#include <utility>

namespace compress {

Walk::Walk(const Model& model, const BatchSource& batches) : model_(model) {
  const std::vector<Value*>& inputs = model.graph().inputs();
  if (batches) {
    batches([&](const std::vector<at::Tensor>& batch) {
      if (batch.size() != inputs.size()) {
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("calibration data has {} inputs, the model {}", batch.size(),
                                inputs.size()));
      }
      for (size_t i = 0; i < inputs.size(); ++i) live_[inputs[i]->name()].push_back(batch[i]);
      samples_ += batch.empty() || batch[0].dim() == 0 ? 1 : batch[0].size(0);
      ++batches_;
    });
  }
  if (batches_ == 0) {
    throw Error(ErrorCode::kInvalidArgument, "there is no calibration data", "",
                "add a `calibration` entry to `data`");
  }
}

void Walk::advance(const Node* node) {
  run_to(node);
  for (const Argument& argument : node->arguments()) {
    argument.each_value([&](const Value* value) {
      const auto found = live_.find(value->name());
      if (found == live_.end()) return;
      for (const at::Tensor& tensor : found->second) {
        if (!tensor.is_floating_point() || tensor.numel() == 0) continue;
        if (at::isfinite(tensor.sum(at::kDouble)).item<bool>()) continue;
        throw Error(ErrorCode::kRunFailed, "NaN or infinite elements on calibration data",
                    value->name());
      }
    });
  }
}

void Walk::finish() { run_to(nullptr); }

const std::vector<at::Tensor>& Walk::at(const Value* value) const {
  const auto found = live_.find(value->name());
  COMPRESS_CHECK(found != live_.end(),
                 fmt::format("`{}` is not live where the walk stands", value->name()));
  return found->second;
}

void Walk::set(const Value* value, std::vector<at::Tensor> content) {
  COMPRESS_CHECK(live_.contains(value->name()) && content.size() == live_[value->name()].size(),
                 fmt::format("`{}` is not live where the walk stands", value->name()));
  live_[value->name()] = std::move(content);
}

void Walk::run_to(const Node* stop) {
  // Values that exist at the stop: computed in front of it from more than named tensors.
  const Graph& graph = model_.graph();
  std::unordered_set<const Value*> before(graph.inputs().begin(), graph.inputs().end());
  auto node = graph.nodes().begin();
  for (; node != graph.nodes().end() && &*node != stop; ++node) {
    bool depends = false;
    for (const Argument& argument : node->arguments()) {
      argument.each_value([&](const Value* used) { depends |= before.contains(used); });
    }
    if (depends) before.insert(node->outputs().begin(), node->outputs().end());
  }
  COMPRESS_CHECK(stop == nullptr || node != graph.nodes().end(), "the node is not in the graph");

  std::vector<const Value*> wanted;
  std::unordered_set<const Value*> seen;
  const std::function<void(const Value*)> want = [&](const Value* value) {
    if (!before.contains(value) || !seen.insert(value).second) return;
    if (value->kind() == ValueKind::kTensor || value->is_input()) {
      wanted.push_back(value);
      return;
    }
    // A size is computed anew behind the cut, from what it is the size of.
    for (const Argument& argument : value->producer()->arguments()) argument.each_value(want);
  };
  for (; node != graph.nodes().end(); ++node) {
    for (const Argument& argument : node->arguments()) argument.each_value(want);
  }
  for (const Output& output : graph.outputs()) output.value.each_value(want);

  std::vector<const Value*> computed, given;
  for (const Value* value : wanted) {
    if (!live_.contains(value->name())) computed.push_back(value);
  }
  for (const auto& [name, content] : live_) {
    if (const Value* value = graph.find(name)) given.push_back(value);
  }
  std::sort(given.begin(), given.end(),
            [](const Value* a, const Value* b) { return a->name() < b->name(); });
  std::unordered_map<std::string, std::vector<at::Tensor>> next;
  if (!computed.empty()) {
    const c10::NoGradGuard no_grad;
    const Model part = extract(model_, given, computed);
    for (int64_t batch = 0; batch < batches_; ++batch) {
      std::vector<at::Tensor> inputs;
      inputs.reserve(given.size());
      for (const Value* value : given) inputs.push_back(live_.at(value->name()).at(batch));
      const std::vector<at::Tensor> outputs = part.forward(inputs);
      for (size_t i = 0; i < computed.size(); ++i) {
        next[computed[i]->name()].push_back(outputs.at(i));
      }
    }
  }
  for (const Value* value : wanted) {
    const auto kept = live_.find(value->name());
    if (kept != live_.end()) next[value->name()] = std::move(kept->second);
  }
  live_ = std::move(next);
}

}  // namespace compress
