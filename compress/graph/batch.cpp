// Frees a batch size that an exporter fixed.
//
// The graph is run once at twice the batch. Where a size that it names disagrees with what arrives
// (a view of twice the elements), the number that belongs to the batch is found from the
// position of the doubled dimension; tensors made from sizes alone (`zeros([1, 8, 64])`) leave it
// open which number it is, so a few guesses are tried. What counts is the proof at the end.

#include "compress/graph/batch.h"

#include "compress/graph/batch_probe.h"
#include "compress/graph/scalar_ops.h"
#include "compress/graph/schema.h"
#include "compress/model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <limits>
#include <map>
#include <optional>
#include <string>

namespace compress {
namespace {

using detail::BatchEdit;
using detail::BatchImpossible;
using detail::BatchPlan;
using detail::numbers_of;
using Sizes = std::vector<int64_t>;
constexpr const char* kSymbol = "batch";
// Results of different batch sizes take different kernels; these differ by rounding only.
constexpr double kTolerance = 1e-5;

// Puts sizes of the first input in the place of the numbers.
void free_sizes(Graph& graph, const std::vector<BatchEdit>& edits) {
  if (edits.empty()) return;
  std::vector<Node*> nodes;
  for (Node& node : graph.nodes()) nodes.push_back(&node);
  Node* front = nodes.front();
  Value* batch =
      graph.insert(front, {"aten::sym_size.int", {graph.inputs()[0], int64_t{0}}, {}, {}, 1, {}})
          ->output();
  std::map<int64_t, Value*> multiples = {{1, batch}};
  for (const BatchEdit& edit : edits) {
    Value*& size = multiples[edit.factor];
    if (size == nullptr) {
      size =
          graph.insert_raw(front, "scalar::mul", {batch, edit.factor}, {{"mul", ValueKind::kInt}})
              ->output();
    }
    Argument sizes = nodes[edit.node]->arguments()[edit.argument];
    sizes.list().at(edit.element) = Argument(size);
    graph.set_argument(nodes[edit.node], edit.argument, std::move(sizes));
  }
}

std::vector<at::Tensor> random_inputs(const Model& model, int64_t batch, int64_t times) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(2718);
  std::vector<at::Tensor> inputs;
  for (const Value* input : model.graph().inputs()) {
    Sizes sizes = numbers_of(input->type);
    if (!sizes.empty() && sizes[0] == batch) sizes[0] *= times;
    const c10::ScalarType dtype = input->type.dtype.value_or(c10::kFloat);
    if (c10::isFloatingType(dtype)) {
      inputs.push_back(at::randn(sizes, generator, at::kFloat).to(dtype));
    } else if (dtype == c10::kBool) {
      inputs.push_back(at::full(sizes, true, at::kBool));
    } else {
      inputs.push_back(
          at::randint(2, sizes, generator, at::kLong).to(dtype));  // 0 and 1 index any table
    }
  }
  return inputs;
}

bool near(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) return false;
  if (a.numel() == 0) return true;
  if (!a.is_floating_point()) return a.equal(b);
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double scale = std::max(y.abs().max().item<double>(), 1e-30);
  return (x - y).abs().max().item<double>() <= kTolerance * scale;  // false for NaN
}

// Whether `whole`, of twice the batch, has the samples of the two halves.
bool agrees(const at::Tensor& whole, const at::Tensor& first, const at::Tensor& second) {
  if (whole.dim() != first.dim()) return false;
  for (int64_t dim = 0; dim < whole.dim(); ++dim) {
    if (whole.size(dim) == first.size(dim)) continue;
    if (whole.size(dim) != 2 * first.size(dim)) return false;
    return near(whole.narrow(dim, 0, first.size(dim)), first) &&
           near(whole.narrow(dim, first.size(dim), first.size(dim)), second);
  }
  return near(whole, first) && near(whole, second);
}

// An evaluation copy that shares the tensors and leaves them alone.
Model quiet_copy(const Model& model) {
  Model copy = model.clone(false);
  copy.eval();
  copy.graph().set_updates({});
  return copy;
}

BatchPlan prove(const Model& model, int64_t batch, int guess, int64_t most_bytes) {
  const Model fixed = quiet_copy(model);
  Model free = quiet_copy(model);
  const std::vector<at::Tensor> whole = random_inputs(model, batch, 2);
  BatchPlan plan = detail::probe_batch(free, whole, batch, guess, most_bytes);
  free_sizes(free.graph(), plan.edits);
  std::array<std::vector<at::Tensor>, 2> halves;
  for (const at::Tensor& input : whole) {
    const bool batched = input.dim() > 0 && input.size(0) == 2 * batch;
    halves[0].push_back(batched ? input.narrow(0, 0, batch) : input);
    halves[1].push_back(batched ? input.narrow(0, batch, batch) : input);
  }
  const std::vector<at::Tensor> first = fixed.forward(halves[0]);
  const std::vector<at::Tensor> second = fixed.forward(halves[1]);
  const std::vector<at::Tensor> together = free.forward(whole);
  const std::vector<at::Tensor> alone = free.forward(halves[0]);
  for (size_t i = 0; i < together.size(); ++i) {
    if (!agrees(together[i], first[i], second[i]) || !near(alone[i], first[i])) {
      throw BatchImpossible{fmt::format("output {} of a sample depends on the batch it is in", i)};
    }
  }
  return plan;
}

// Dimensions that doubled with the batch get its symbol.
void mark(Model& model, int64_t batch, const BatchPlan& plan) {
  const auto dim_of = [&](int64_t size) {
    const int64_t factor = size / batch;
    return Dim(factor == 1 ? std::string(kSymbol) : fmt::format("{}*{}", factor, kSymbol), size);
  };
  size_t index = 0;
  for (Node& node : model.graph().nodes()) {
    const std::vector<Sizes>& doubled = plan.doubled[index++];
    for (size_t i = 0; i < node.outputs().size() && i < doubled.size(); ++i) {
      std::optional<std::vector<Dim>>& sizes = node.outputs()[i]->type.sizes;
      if (!sizes || sizes->size() != doubled[i].size()) continue;
      for (size_t d = 0; d < sizes->size(); ++d) {
        Dim& dim = (*sizes)[d];
        if (doubled[i][d] == 2 * dim.size && dim.size % batch == 0 && dim.size > 0) {
          dim = dim_of(dim.size);
        }
      }
    }
  }
  for (Value* input : model.graph().inputs()) {
    std::optional<std::vector<Dim>>& sizes = input->type.sizes;
    if (sizes && !sizes->empty() && sizes->front().size == batch) sizes->front() = dim_of(batch);
  }
}

// The product of sizes that a file may have made up; the largest number where it has no end.
int64_t safe_product(const Sizes& sizes) {
  int64_t result = 1;
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(result, size, &result)) return std::numeric_limits<int64_t>::max();
  }
  return result;
}

int64_t safe_sum(int64_t a, int64_t b) {
  return __builtin_add_overflow(a, b, &a) ? std::numeric_limits<int64_t>::max() : a;
}

// Why a model is not even tried; empty if it is.
std::string reason_to_leave(const Model& model, const BatchOptions& options) {
  int64_t bytes = 0, macs = 0;
  for (const NamedTensor& tensor : model.tensors()) {
    if (!tensor.tensor.defined()) return "tensors have no contents";
    bytes += static_cast<int64_t>(tensor.tensor.nbytes());
  }
  for (const Value* input : model.graph().inputs()) {
    Sizes doubled = numbers_of(input->type);
    doubled.push_back(2 * static_cast<int64_t>(sizeof(double)));
    bytes = safe_sum(bytes, safe_product(doubled));
  }
  if (bytes > options.most_bytes) return "the model is too large to try another batch size";
  for (const Node& node : model.graph().nodes()) {
    if (node.schema() == nullptr && !is_scalar_op(node.op())) {
      return fmt::format("`{}` is unknown here", node.op());
    }
    const std::optional<size_t> weight = node.argument_index("weight");
    if (!weight || !node.arguments()[*weight].is_value() || !node.output()->type.sizes) continue;
    const Sizes weights = numbers_of(node.arguments()[*weight].value()->type);
    const Sizes result = numbers_of(node.output()->type);
    if (weights.size() < 2 || base_name(node.op()) == "embedding") continue;
    const int64_t per_element = safe_product(weights) / std::max<int64_t>(weights[0], 1);
    macs = safe_sum(macs, safe_product({safe_product(result), per_element}));
  }
  if (macs > options.most_macs) return "trying another batch size would take too long";
  return {};
}

bool has_fixed_sizes(const Model& model) {
  if (model.graph().inputs().empty() || model.graph().nodes().empty()) return false;
  for (const Value* input : model.graph().inputs()) {
    if (input->kind() != ValueKind::kTensor || !input->type.sizes) return false;
    for (const Dim& dim : *input->type.sizes) {
      if (dim.is_symbolic()) return false;
    }
  }
  const std::vector<Dim>& first = *model.graph().inputs()[0]->type.sizes;
  return !first.empty() && first[0].size > 0;
}

}  // namespace

void generalize_batch(Model& model, const BatchOptions& options) {
  if (!has_fixed_sizes(model)) return;
  const int64_t batch = model.graph().inputs()[0]->type.sizes->front().size;
  std::string why = reason_to_leave(model, options);
  const at::NoGradGuard no_grad;
  if (why.empty()) {
    for (const int guess : {0, 1, -1}) {
      try {
        const BatchPlan plan = prove(model, batch, guess, options.most_bytes);
        mark(model, batch, plan);
        free_sizes(model.graph(), plan.edits);
        return;
      } catch (const BatchImpossible& impossible) {
        if (why.empty()) why = impossible.why;
      } catch (const c10::Error& error) {
        if (why.empty()) why = error.what_without_backtrace();
      } catch (const std::exception& error) {
        if (why.empty()) why = error.what();
      }
    }
  }
  model.notes.push_back(fmt::format("the batch size {} is fixed by the file: {}", batch,
                                    why.substr(0, why.find('\n'))));
}

}  // namespace compress
