// Types of all values of a graph, found by running it.

#include "compress/graph/shapes.h"

#include "compress/error.h"
#include "compress/graph/interpreter.h"
#include "compress/model.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <set>

namespace compress {
namespace {

// With less, a dimension could be taken for one that broadcasts.
constexpr int64_t kLeastExample = 2;

using Sizes = std::vector<int64_t>;
using Assignment = std::map<std::string, int64_t>;  // symbol -> size

// The symbol that stands in front of the first input, by convention the batch.
std::string batch_symbol(const Graph& graph) {
  for (const Value* input : graph.inputs()) {
    if (!input->type.sizes || input->type.sizes->empty()) continue;
    return input->type.sizes->front().symbol;
  }
  return {};
}

Assignment example_sizes(const Graph& graph, int64_t batch) {
  Assignment sizes;
  for (const Value* input : graph.inputs()) {
    if (!input->type.sizes) continue;
    for (const Dim& dim : *input->type.sizes) {
      if (dim.is_symbolic()) sizes[dim.symbol] = std::max(dim.size, kLeastExample);
    }
  }
  const std::string symbol = batch_symbol(graph);
  if (!symbol.empty() && batch > 0) sizes[symbol] = batch;
  return sizes;
}

std::vector<at::Tensor> make_inputs(const Graph& graph, const Assignment& sizes) {
  std::vector<at::Tensor> inputs;
  for (const Value* input : graph.inputs()) {
    Sizes shape;
    if (input->kind() == ValueKind::kTensor && input->type.sizes) {
      for (const Dim& dim : *input->type.sizes) {
        shape.push_back(dim.is_symbolic() ? sizes.at(dim.symbol) : dim.size);
      }
    }
    const c10::ScalarType fallback = input->kind() == ValueKind::kTensor ? c10::kFloat
                                     : input->kind() == ValueKind::kInt  ? c10::kLong
                                     : input->kind() == ValueKind::kBool ? c10::kBool
                                                                         : c10::kDouble;
    const auto options = at::TensorOptions().dtype(input->type.dtype.value_or(fallback));
    // A mask of zeros would make attention divide zero by zero; ones let everything through.
    inputs.push_back(options.dtype() == c10::kBool ? at::full(shape, true, options)
                                                   : at::zeros(shape, options));
  }
  return inputs;
}

// Puts the buffers' contents back, which batch norm and updates change in a run.
class BufferGuard {
 public:
  explicit BufferGuard(const Model& model) {
    for (const NamedTensor& tensor : model.tensors()) {
      if (tensor.role == TensorRole::kParameter || !tensor.tensor.defined()) continue;
      if (tensor.tensor.numel() > kLargestStatistic)
        continue;  // masks and codes: nothing writes them
      saved_.emplace_back(tensor.tensor, tensor.tensor.detach().clone());
    }
  }
  ~BufferGuard() {
    const at::NoGradGuard no_grad;
    for (auto& [tensor, copy] : saved_) {
      if (!tensor.equal(copy)) tensor.copy_(copy);
    }
  }

 private:
  static constexpr int64_t kLargestStatistic = 1 << 16;
  std::vector<std::pair<at::Tensor, at::Tensor>> saved_;
};

struct Measured {
  std::optional<c10::ScalarType> dtype;
  Sizes sizes;
};
using Measurement = std::unordered_map<const Value*, Measured>;

Measurement measure(const Model& model, const std::vector<at::Tensor>& inputs) {
  const at::NoGradGuard no_grad;
  Measurement result;
  model.interpreter().run(inputs, [&](const Value& value, const c10::IValue& content) {
    if (content.isTensor() && content.toTensor().defined()) {
      const at::Tensor& tensor = content.toTensor();
      result[&value] = {tensor.scalar_type(), tensor.sizes().vec()};
    }
  });
  return result;
}

// Sizes as linear functions of one symbol, or as a product of two; `?` when it is neither.
Dim describe_dim(int64_t size, const std::vector<std::pair<std::string, int64_t>>& moved,
                 const Assignment& before, const Assignment& after) {
  if (moved.empty()) return Dim(size);
  if (moved.size() == 1) {
    const auto& [symbol, changed] = moved.front();
    const int64_t step = after.at(symbol) - before.at(symbol);
    if ((changed - size) % step == 0) {
      const int64_t factor = (changed - size) / step;
      const int64_t offset = size - factor * before.at(symbol);
      std::string text = factor == 1 ? symbol : fmt::format("{}*{}", factor, symbol);
      if (offset != 0) text += fmt::format(" {} {}", offset < 0 ? "-" : "+", std::abs(offset));
      return Dim(text, size);
    }
  }
  int64_t product = 1;
  std::vector<std::string> symbols;
  for (const auto& [symbol, changed] : moved) {
    product *= before.at(symbol);
    symbols.push_back(symbol);
  }
  if (size % product == 0) {
    const int64_t factor = size / product;
    std::string text = factor == 1 ? "" : fmt::format("{}*", factor);
    for (size_t i = 0; i < symbols.size(); ++i) text += (i ? "*" : "") + symbols[i];
    return Dim(text, size);
  }
  return Dim("?", size);
}

void note_types(Model& model, const Measurement& measured, const Assignment& before,
                const std::map<std::string, std::pair<int64_t, Measurement>>& moved_runs) {
  Assignment after = before;
  for (const auto& [symbol, run] : moved_runs) after[symbol] = run.first;
  for (Node& node : model.graph().nodes()) {
    for (Value* value : node.outputs()) {
      const auto found = measured.find(value);
      if (found == measured.end()) continue;
      const Measured& base = found->second;
      std::vector<Dim> dims;
      for (size_t i = 0; i < base.sizes.size(); ++i) {
        std::vector<std::pair<std::string, int64_t>> moved;
        for (const auto& [symbol, run] : moved_runs) {
          const auto other = run.second.find(value);
          if (other == run.second.end() || other->second.sizes.size() != base.sizes.size())
            continue;
          const int64_t changed = other->second.sizes[i];
          if (changed != base.sizes[i]) moved.emplace_back(symbol, changed);
        }
        dims.push_back(describe_dim(base.sizes[i], moved, before, after));
      }
      value->type.dtype = base.dtype;
      value->type.sizes = std::move(dims);
    }
  }
}

}  // namespace

std::vector<at::Tensor> example_inputs(const Model& model, int64_t batch) {
  return make_inputs(model.graph(), example_sizes(model.graph(), batch));
}

std::vector<Dim> free_sizes(const Model& model) {
  const std::string batch = batch_symbol(model.graph());
  std::vector<Dim> found;
  for (const Value* input : model.graph().inputs()) {
    if (!input->type.sizes) continue;
    for (const Dim& dim : *input->type.sizes) {
      if (!dim.is_symbolic() || dim.symbol == batch) continue;
      if (std::find(found.begin(), found.end(), dim) == found.end()) found.push_back(dim);
    }
  }
  return found;
}

std::string free_sizes_text(const Model& model) {
  std::vector<std::string> parts;
  for (const Dim& dim : free_sizes(model)) {
    parts.push_back(fmt::format("{} {}", dim.symbol, std::max(dim.size, kLeastExample)));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

void set_free_size(Model& model, std::string_view symbol, int64_t size) {
  std::vector<std::string> names;
  for (const Dim& dim : free_sizes(model)) names.push_back(dim.symbol);
  if (std::find(names.begin(), names.end(), symbol) == names.end()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the inputs have no free size `{}`", symbol), {},
                names.empty() ? "all their sizes but the batch are fixed"
                              : fmt::format("they have: {}", fmt::join(names, ", ")));
  }
  if (size < kLeastExample) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} is too small", size), {},
                "figures are taken at sizes from 2 on");
  }
  Model trial = model.clone(/*deep=*/false);
  for (const Value* input : trial.graph().inputs()) {
    Value* value = trial.graph().find(input->name());
    if (!value->type.sizes) continue;
    for (Dim& dim : *value->type.sizes) {
      if (dim.symbol == symbol) dim.size = size;
    }
  }
  propagate_shapes(trial);
  model = std::move(trial);
}

void propagate_shapes(Model& model, const std::vector<at::Tensor>& inputs) {
  const BufferGuard guard(model);
  const Measurement measured = measure(model, inputs);
  Assignment before;
  const std::vector<Value*>& declared = model.graph().inputs();
  for (size_t i = 0; i < declared.size(); ++i) {
    if (!declared[i]->type.sizes) continue;
    const std::vector<Dim>& dims = *declared[i]->type.sizes;
    for (size_t d = 0; d < dims.size() && d < static_cast<size_t>(inputs[i].dim()); ++d) {
      if (dims[d].is_symbolic()) before[dims[d].symbol] = inputs[i].size(static_cast<int64_t>(d));
    }
  }
  std::map<std::string, std::pair<int64_t, Measurement>> moved_runs;
  for (const auto& [symbol, size] : before) {
    Assignment moved = before;
    moved[symbol] = 2 * size;  // doubling keeps divisibility
    try {
      moved_runs[symbol] = {2 * size, measure(model, make_inputs(model.graph(), moved))};
    } catch (const Error&) {
      // The model does not run at that size (a table of positions is full): its dimensions that
      // depend on the symbol stay numbers.
    }
  }
  note_types(model, measured, before, moved_runs);
}

void propagate_shapes(Model& model) { propagate_shapes(model, example_inputs(model)); }

}  // namespace compress
