// Frees a batch size that an exporter fixed.
//
// The graph is run once at twice the batch. Where a size that it names disagrees with what arrives
// (a view of twice the elements), the number that belongs to the batch is found from the
// position of the doubled dimension; tensors made from sizes alone (`zeros([1, 8, 64])`) leave it
// open which number it is, so a few guesses are tried. What counts is the proof at the end.

#include "compress/graph/batch.h"

#include "compress/error.h"
#include "compress/graph/boxing.h"
#include "compress/graph/scalar_ops.h"
#include "compress/graph/schema.h"
#include "compress/model.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <set>

namespace compress {
namespace {

using Sizes = std::vector<int64_t>;
constexpr const char* kSymbol = "batch";
// Results of different batch sizes take different kernels; these differ by rounding only.
constexpr double kTolerance = 1e-5;

// A number in a list of sizes that is `factor` times the batch.
struct Edit {
  size_t node = 0, argument = 0, element = 0;
  int64_t factor = 1;
};

struct Plan {
  std::vector<Edit> edits;
  std::vector<std::vector<Sizes>> doubled;  // sizes of every node's outputs at twice the batch
};

// Thrown inside only: why a model stays at its batch size.
struct Impossible {
  std::string why;
};

Sizes numbers_of(const TensorType& type) {
  Sizes sizes;
  for (const Dim& dim : type.sizes.value_or(std::vector<Dim>())) sizes.push_back(dim.size);
  return sizes;
}

int64_t product(const Sizes& sizes, size_t count) {
  return std::accumulate(sizes.begin(), sizes.begin() + static_cast<int64_t>(count), int64_t{1},
                         std::multiplies<>());
}

bool is_view(const std::string& name) {
  static const std::set<std::string> kViews = {"view", "reshape", "_unsafe_view"};
  return kViews.contains(name);
}

bool makes_from_sizes(const std::string& name) {
  static const std::set<std::string> kMakers = {"zeros",     "ones",     "full",     "empty",
                                                "new_zeros", "new_ones", "new_full", "new_empty",
                                                "expand",    "rand",     "randn"};
  return kMakers.contains(name);
}

// The position of the argument that lists sizes.
std::optional<size_t> size_argument(const Node& node) {
  for (const char* name : {"size", "shape"}) {
    const std::optional<size_t> index = node.argument_index(name);
    if (index && node.arguments()[*index].is_list()) return index;
  }
  return std::nullopt;
}

// Loading a file must not let it do harm: a proof runs the file's operators, so only those that
// compute on tensors, on modest sizes, take part.
constexpr int64_t kLargestNumber = int64_t{1} << 24;

void check_harmless(const Node& node, int64_t most_bytes) {
  const int64_t most_elements = most_bytes / static_cast<int64_t>(sizeof(float));
  const std::string name = base_name(node.op());
  const bool known = node.schema() == nullptr || node.op().starts_with("aten::");
  if (!known || name == "from_file") throw Impossible{fmt::format("`{}` is not tried", node.op())};
  if (name == "slice") return;  // ends are as large as can be
  for (const Argument& argument : node.arguments()) {
    int64_t elements = 1;
    const auto check = [&](const Argument& number) {
      if (!number.is_int()) return;
      const int64_t size = number.as<int64_t>();
      const bool overflows =
          __builtin_mul_overflow(elements, std::max<int64_t>(size, 1), &elements);
      if (overflows || size > kLargestNumber || elements > most_elements) {
        throw Impossible{fmt::format("`{}` has a very large number", node.op())};
      }
    };
    check(argument);
    if (argument.is_list()) std::for_each(argument.list().begin(), argument.list().end(), check);
  }
}

void check_size(const at::Tensor& tensor, const Node& node, int64_t most_bytes) {
  if (tensor.nbytes() > static_cast<size_t>(most_bytes)) {
    throw Impossible{fmt::format("the result of `{}` is very large", node.op())};
  }
}

// LibTorch's recurrent kernels believe the sizes of the states and weights that they are given;
// with wrong ones they write out of bounds.
void check_recurrent(const Node& node, const std::vector<c10::IValue>& stack) {
  const std::string name = base_name(node.op());
  if (name != "lstm" && name != "gru" && name != "rnn_tanh" && name != "rnn_relu") return;
  const auto refuse = [&] {
    throw Impossible{fmt::format("the state of `{}` does not fit", name)};
  };
  if (!node.op().ends_with(".input")) refuse();
  const at::Tensor& input = stack[0].toTensor();
  const std::vector<at::Tensor> states = stack[1].isTensorList()
                                             ? stack[1].toTensorVector()
                                             : std::vector<at::Tensor>{stack[1].toTensor()};
  const std::vector<at::Tensor> weights = stack[2].toTensorVector();
  const int64_t layers = stack[4].toInt() * (stack[7].toBool() ? 2 : 1);
  if (input.dim() != 3 || weights.empty()) refuse();
  const int64_t batch = input.size(stack[8].toBool() ? 0 : 1);
  for (const at::Tensor& state : states) {
    if (state.dim() != 3 || state.size(0) != layers || state.size(1) != batch) refuse();
  }
  if (weights[0].dim() != 2 || weights[0].size(1) != input.size(2)) refuse();
}

// Runs the nodes one by one at twice the batch and notes which numbers had to follow.
class Prober {
 public:
  // `guess`: the dimension that takes the batch in tensors made from sizes; none if negative.
  Prober(const Model& model, int64_t batch, int guess, int64_t most_bytes)
      : model_(model), batch_(batch), guess_(guess), most_bytes_(most_bytes) {}

  Plan probe(const std::vector<at::Tensor>& inputs);

 private:
  void fit(const Node& node, size_t index, std::vector<c10::IValue>& stack);
  void fit_view(const Node& node, size_t index, size_t argument, std::vector<c10::IValue>& stack);
  void change(size_t index, size_t argument, size_t element, Sizes& sizes);
  std::vector<c10::IValue> call(const Node& node, size_t index);

  const Model& model_;
  int64_t batch_;
  int guess_;
  int64_t most_bytes_;  // of one result
  Plan plan_;
  std::unordered_map<const Value*, c10::IValue> values_;
};

void Prober::change(size_t index, size_t argument, size_t element, Sizes& sizes) {
  if (sizes[element] % batch_ != 0) throw Impossible{"a size is no multiple of the batch"};
  plan_.edits.push_back({index, argument, element, sizes[element] / batch_});
  sizes[element] *= 2;
}

// A view of twice the elements: the doubled dimension keeps its place among the elements.
void Prober::fit_view(const Node& node, size_t index, size_t argument,
                      std::vector<c10::IValue>& stack) {
  const at::Tensor& input = stack[0].toTensor();
  Sizes target = stack[argument].toIntVector();
  const Sizes before = numbers_of(node.arguments()[0].value()->type);
  if (std::find(target.begin(), target.end(), -1) != target.end()) {
    // One size is inferred; a number that is the batch would keep it from following.
    const Sizes after = numbers_of(node.output()->type);
    if (after.size() == target.size() && product(before, before.size()) * 2 == input.numel() &&
        !target.empty() && target[0] == batch_) {
      change(index, argument, 0, target);
    }
  } else {
    const int64_t elements = product(target, target.size());
    if (elements == input.numel()) return;
    size_t doubled = 0;
    while (doubled < before.size() &&
           input.size(static_cast<int64_t>(doubled)) == before[doubled]) {
      ++doubled;
    }
    if (elements * 2 != input.numel() || doubled >= before.size()) {
      throw Impossible{"a view does not follow"};
    }
    const int64_t ahead = product(before, doubled);
    size_t element = 0;
    while (element + 1 < target.size() && product(target, element) != ahead &&
           product(target, element + 1) <= ahead) {
      ++element;
    }
    change(index, argument, element, target);
  }
  stack[argument] = c10::IValue(target);
}

void Prober::fit(const Node& node, size_t index, std::vector<c10::IValue>& stack) {
  const std::optional<size_t> argument = size_argument(node);
  if (!argument || !stack[*argument].isIntList()) return;
  const std::string name = base_name(node.op());
  if (is_view(name)) {
    fit_view(node, index, *argument, stack);
  } else if (makes_from_sizes(name)) {
    Sizes sizes = stack[*argument].toIntVector();
    const bool expands = name == "expand";
    const bool follows = expands && stack[0].toTensor().dim() > 0 &&
                         sizes.size() == static_cast<size_t>(stack[0].toTensor().dim()) &&
                         !sizes.empty() && stack[0].toTensor().size(0) == 2 * batch_ &&
                         sizes[0] == batch_;
    const auto element = static_cast<size_t>(expands ? 0 : std::max(guess_, 0));
    const bool wanted = follows || (guess_ >= 0 && element < sizes.size());
    if (!wanted || sizes[element] != batch_) return;
    change(index, *argument, element, sizes);
    stack[*argument] = c10::IValue(sizes);
  }
}

std::vector<c10::IValue> Prober::call(const Node& node, size_t index) {
  check_harmless(node, most_bytes_);
  const ValueLookup lookup = [&](const Value* value) -> const c10::IValue& {
    return values_.at(value);
  };
  std::vector<c10::IValue> stack;
  if (node.schema() == nullptr) {
    for (const Argument& argument : node.arguments()) {
      stack.push_back(box(argument, c10::AnyType::get(), lookup));
    }
    return {apply_scalar_op(node.op(), stack)};
  }
  for (size_t i = 0; i < node.arguments().size(); ++i) {
    stack.push_back(box(node.arguments()[i], node.schema()->arguments()[i].type(), lookup));
  }
  fit(node, index, stack);
  check_recurrent(node, stack);
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(
      node.schema()->name().c_str(), node.schema()->overload_name().c_str());
  handle.callBoxed(&stack);
  std::vector<c10::IValue> results;
  for (c10::IValue& result : stack) {
    if (!result.isTensorList()) {
      results.push_back(std::move(result));
      continue;
    }
    for (const at::Tensor& tensor : result.toTensorVector()) results.emplace_back(tensor);
  }
  return results;
}

Plan Prober::probe(const std::vector<at::Tensor>& inputs) {
  const Graph& graph = model_.graph();
  for (size_t i = 0; i < inputs.size(); ++i) values_[graph.inputs()[i]] = inputs[i];
  for (const NamedTensor& tensor : model_.tensors()) {
    values_[graph.find(tensor.name)] = tensor.tensor;
  }
  std::unordered_map<const Value*, size_t> last_use;
  size_t index = 0;
  for (const Node& node : graph.nodes()) {
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) { last_use[value] = index; });
    }
    ++index;
  }
  index = 0;
  for (const Node& node : graph.nodes()) {
    const std::vector<c10::IValue> results = call(node, index);
    std::vector<Sizes>& sizes = plan_.doubled.emplace_back();
    for (size_t i = 0; i < node.outputs().size() && i < results.size(); ++i) {
      const bool tensor = results[i].isTensor() && results[i].toTensor().defined();
      if (tensor) check_size(results[i].toTensor(), node, most_bytes_);
      sizes.push_back(tensor ? results[i].toTensor().sizes().vec() : Sizes());
      if (last_use.contains(node.outputs()[i])) values_[node.outputs()[i]] = results[i];
    }
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) {
        if (last_use[value] == index) values_.erase(value);
      });
    }
    ++index;
  }
  return std::move(plan_);
}

// Puts sizes of the first input in the place of the numbers.
void free_sizes(Graph& graph, const std::vector<Edit>& edits) {
  if (edits.empty()) return;
  std::vector<Node*> nodes;
  for (Node& node : graph.nodes()) nodes.push_back(&node);
  Node* front = nodes.front();
  Value* batch =
      graph.insert(front, {"aten::sym_size.int", {graph.inputs()[0], int64_t{0}}, {}, {}, 1, {}})
          ->output();
  std::map<int64_t, Value*> multiples = {{1, batch}};
  for (const Edit& edit : edits) {
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

Plan prove(const Model& model, int64_t batch, int guess, int64_t most_bytes) {
  const Model fixed = quiet_copy(model);
  Model free = quiet_copy(model);
  const std::vector<at::Tensor> whole = random_inputs(model, batch, 2);
  Plan plan = Prober(free, batch, guess, most_bytes).probe(whole);
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
      throw Impossible{fmt::format("output {} of a sample depends on the batch it is in", i)};
    }
  }
  return plan;
}

// Dimensions that doubled with the batch get its symbol.
void mark(Model& model, int64_t batch, const Plan& plan) {
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
        const Plan plan = prove(model, batch, guess, options.most_bytes);
        mark(model, batch, plan);
        free_sizes(model.graph(), plan.edits);
        return;
      } catch (const Impossible& impossible) {
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
