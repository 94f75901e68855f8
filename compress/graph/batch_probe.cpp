// Runs a graph at twice its fixed batch and finds the numbers that have to follow.

#include "compress/graph/batch_probe.h"

#include "compress/graph/boxing.h"
#include "compress/graph/recurrent.h"
#include "compress/graph/scalar_ops.h"
#include "compress/graph/schema.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>
#include <unordered_map>

namespace compress::detail {
namespace {

using Sizes = std::vector<int64_t>;

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
  if (!known || name == "from_file") {
    throw BatchImpossible{fmt::format("`{}` is not tried", node.op())};
  }
  if (name == "slice") return;  // ends are as large as can be
  for (const Argument& argument : node.arguments()) {
    int64_t elements = 1;
    const auto check = [&](const Argument& number) {
      if (!number.is_int()) return;
      const int64_t size = number.as<int64_t>();
      const bool overflows =
          __builtin_mul_overflow(elements, std::max<int64_t>(size, 1), &elements);
      if (overflows || size > kLargestNumber || elements > most_elements) {
        throw BatchImpossible{fmt::format("`{}` has a very large number", node.op())};
      }
    };
    check(argument);
    if (argument.is_list()) std::for_each(argument.list().begin(), argument.list().end(), check);
  }
}

void check_size(const at::Tensor& tensor, const Node& node, int64_t most_bytes) {
  if (tensor.nbytes() > static_cast<size_t>(most_bytes)) {
    throw BatchImpossible{fmt::format("the result of `{}` is very large", node.op())};
  }
}

// The kernels of the other recurrent operators believe what they are given.
void check_recurrent(const Node& node, const std::vector<c10::IValue>& stack) {
  const std::string name = base_name(node.op());
  if (name != "lstm" && name != "gru" && name != "rnn_tanh" && name != "rnn_relu") return;
  if (!is_recurrent(node) || !recurrent_problem(node, stack).empty()) {
    throw BatchImpossible{fmt::format("the state of `{}` does not fit", name)};
  }
}

// Runs the nodes one by one at twice the batch and notes which numbers had to follow.
class Prober {
 public:
  // `guess`: the dimension that takes the batch in tensors made from sizes; none if negative.
  Prober(const Model& model, int64_t batch, int guess, int64_t most_bytes)
      : model_(model), batch_(batch), guess_(guess), most_bytes_(most_bytes) {}

  BatchPlan probe(const std::vector<at::Tensor>& inputs);

 private:
  void fit(const Node& node, size_t index, std::vector<c10::IValue>& stack);
  void fit_view(const Node& node, size_t index, size_t argument, std::vector<c10::IValue>& stack);
  void change(size_t index, size_t argument, size_t element, Sizes& sizes);
  std::vector<c10::IValue> call(const Node& node, size_t index);

  const Model& model_;
  int64_t batch_;
  int guess_;
  int64_t most_bytes_;  // of one result
  BatchPlan plan_;
  std::unordered_map<const Value*, c10::IValue> values_;
};

void Prober::change(size_t index, size_t argument, size_t element, Sizes& sizes) {
  if (sizes[element] % batch_ != 0) throw BatchImpossible{"a size is no multiple of the batch"};
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
    if (elements * 2 != input.numel() || doubled >= before.size() ||
        input.size(static_cast<int64_t>(doubled)) != 2 * before[doubled]) {
      throw BatchImpossible{"a view does not follow"};
    }
    change(index, argument, batch_element(before, doubled, target, batch_), target);
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

BatchPlan Prober::probe(const std::vector<at::Tensor>& inputs) {
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

}  // namespace

Sizes numbers_of(const TensorType& type) {
  Sizes sizes;
  for (const Dim& dim : type.sizes.value_or(std::vector<Dim>())) sizes.push_back(dim.size);
  return sizes;
}

size_t batch_element(const Sizes& before, size_t doubled, const Sizes& target, int64_t batch) {
  const int64_t ahead = product(before, doubled), behind = product(before, doubled + 1);
  // Where the dimension is split, the one part that is the batch itself takes it, wherever it
  // stands: attention leaves [length * batch, features], and [length, batch, features] comes out.
  size_t parts = 0, part = 0;
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i] != batch || product(target, i) < ahead) continue;
    if (product(target, i + 1) > behind) break;
    ++parts;
    part = i;
  }
  if (parts == 1) return part;
  size_t element = 0;
  while (element + 1 < target.size() && product(target, element) != ahead &&
         product(target, element + 1) <= ahead) {
    ++element;
  }
  // A batch of 1 between two sizes goes with either; features, which come last, are no place for
  // it: [length, 1, heads, width] -> [length, features].
  const bool last = element > 0 && element + 1 == target.size();
  if (last && batch == 1 && target[element] != 1 && product(target, element) == ahead) --element;
  return element;
}

BatchPlan probe_batch(const Model& model, const std::vector<at::Tensor>& inputs, int64_t batch,
                      int guess, int64_t most_bytes) {
  return Prober(model, batch, guess, most_bytes).probe(inputs);
}

}  // namespace compress::detail
