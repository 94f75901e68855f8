// Runs a graph through LibTorch's dispatcher.

#include "compress/graph/interpreter.h"

#include "compress/error.h"
#include "compress/graph/boxing.h"
#include "compress/graph/recurrent.h"
#include "compress/graph/scalar_ops.h"
#include "compress/graph/schema.h"
#include "compress/model.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

using c10::IValue;
using Slot = uint32_t;

// An argument that is not constant, and the slots to free once it has been read.
struct Patch {
  uint32_t argument;
  Slot slot;           // of a plain value
  bool is_list;        // else it is boxed anew on each run
  bool needs_fitting;  // a scalar that the schema wants as another type
};

struct Step {
  const Node* node;
  std::optional<c10::OperatorHandle> handle;  // none for scalar:: operators
  std::vector<IValue> stack;                  // constants filled in
  std::vector<Patch> patches;
  std::vector<Slot> outputs;
  std::vector<Slot> free_after;
  bool returns_list = false;
  bool is_constant = false;   // depends on named tensors only
  bool is_recurrent = false;  // its kernel does not check what it is given
};

std::string describe(const Node& node) {
  const std::string name = node.outputs().empty() ? "?" : node.output()->name();
  return node.module_path.empty() ? fmt::format("node `{}`", name)
                                  : fmt::format("node `{}` of module `{}`", name, node.module_path);
}

void check_recurrent(const Node& node, const std::vector<IValue>& operands) {
  const std::string problem = recurrent_problem(node, operands);
  if (problem.empty()) return;
  throw Error(ErrorCode::kRunFailed, fmt::format("{} cannot run: {}", node.op(), problem),
              describe(node));
}

// Runs one node on the values in `known` and adds its outputs.
void run_node(const Node& node, std::unordered_map<const Value*, IValue>& known) {
  const c10::FunctionSchema* schema = node.schema();
  const ValueLookup lookup = [&](const Value* value) -> const IValue& { return known.at(value); };
  std::vector<IValue> stack;
  for (size_t i = 0; i < node.arguments().size(); ++i) {
    const c10::TypePtr type = schema ? schema->arguments()[i].type() : c10::AnyType::get();
    stack.push_back(box(node.arguments()[i], type, lookup));
  }
  if (schema == nullptr) {
    known[node.output()] = apply_scalar_op(node.op(), stack);
    return;
  }
  if (is_recurrent(node)) check_recurrent(node, stack);
  c10::Dispatcher::singleton().findSchema(schema->operator_name())->callBoxed(stack);
  std::vector<IValue> returned;
  for (IValue& value : stack) {
    if (returns_list(*schema) && value.isList()) {
      for (const IValue& element : value.toListRef()) returned.push_back(element);
    } else {
      returned.push_back(std::move(value));
    }
  }
  for (size_t i = 0; i < node.outputs().size() && i < returned.size(); ++i) {
    known[node.outputs()[i]] = returned[i];
  }
}

// What a cached constant was computed from.
struct Root {
  const NamedTensor* source;
  at::Tensor tensor;
  int64_t version;
};

std::string shapes_of(const std::vector<IValue>& stack, const Node& node) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < stack.size(); ++i) {
    if (!stack[i].isTensor() || !stack[i].toTensor().defined()) continue;
    const at::Tensor& tensor = stack[i].toTensor();
    const std::string name =
        node.schema() ? node.schema()->arguments()[i].name() : std::to_string(i);
    parts.push_back(fmt::format("{}: {}[{}]", name, c10::toString(tensor.scalar_type()),
                                fmt::join(tensor.sizes(), ",")));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

struct Interpreter::Plan {
  const Model* model;
  uint64_t version;
  std::unordered_map<const Value*, Slot> slot_of;
  std::vector<const Value*> value_of;
  std::vector<IValue> slots;
  std::vector<std::pair<const NamedTensor*, Slot>> tensors;
  std::vector<Slot> inputs;
  std::vector<Step> steps;
  std::vector<bool> is_constant;  // by slot
  std::vector<bool> is_cached;    // by slot: a constant that other nodes or outputs read
  std::unordered_map<Slot, IValue> cache;
  std::vector<Root> roots;

  Slot add(const Value* value) {
    const Slot slot = static_cast<Slot>(slots.size());
    slot_of[value] = slot;
    value_of.push_back(value);
    slots.emplace_back();
    is_constant.push_back(value->is_named_tensor());
    is_cached.push_back(false);
    return slot;
  }

  void compile();
  void compile_node(const Node& node, std::unordered_map<Slot, size_t>& last_use);
  void find_roots();
  bool cache_is_valid() const;
  void load_tensors();
  void load_inputs(const std::vector<at::Tensor>& given);
  void call(Step& step);
  void store_outputs(const Step& step, std::vector<IValue>& stack);
  void run_steps(const Observer& observer, bool use_cache);
  const IValue& lookup(const Value* value) const { return slots[slot_of.at(value)]; }
};

void Interpreter::Plan::compile() {
  const Graph& graph = model->graph();
  for (const Value* input : graph.inputs()) inputs.push_back(add(input));
  for (const Value* value : graph.named_tensors()) {
    const NamedTensor* tensor = model->find_tensor(value->name());
    COMPRESS_CHECK(tensor != nullptr,
                   fmt::format("no tensor belongs to the value `{}`", value->name()));
    tensors.emplace_back(tensor, add(value));
  }
  std::unordered_map<Slot, size_t> last_use;
  for (const Node& node : graph.nodes()) compile_node(node, last_use);
  std::unordered_set<Slot> kept;
  const auto keep = [&](const std::vector<Output>& outputs) {
    for (const Output& output : outputs) {
      output.value.each_value([&](Value* value) {
        kept.insert(slot_of.at(value));
        is_cached[slot_of.at(value)] = is_constant[slot_of.at(value)];
      });
    }
  };
  keep(graph.outputs());
  keep(graph.updates());
  for (const auto& [slot, step] : last_use) {
    if (!kept.contains(slot)) steps[step].free_after.push_back(slot);
  }
  find_roots();
}

void Interpreter::Plan::compile_node(const Node& node, std::unordered_map<Slot, size_t>& last_use) {
  Step step;
  step.node = &node;
  const c10::FunctionSchema* schema = node.schema();
  if (schema != nullptr) {
    step.handle = c10::Dispatcher::singleton().findSchema(schema->operator_name());
    step.returns_list = returns_list(*schema);
    step.is_recurrent = is_recurrent(node);
  }
  bool reads_tensor = false, constant = schema != nullptr && !has_side_effect(node);
  if (step.handle) constant = constant && !step.handle->hasTag(at::Tag::nondeterministic_seeded);
  const ValueLookup none = [](const Value*) -> const IValue& {
    throw Error(ErrorCode::kInvalidArgument, "not a constant");
  };
  for (size_t i = 0; i < node.arguments().size(); ++i) {
    const Argument& argument = node.arguments()[i];
    bool has_value = false;
    argument.each_value([&](Value* value) {
      const auto found = slot_of.find(value);
      COMPRESS_CHECK(found != slot_of.end(),
                     fmt::format("`{}` is used before it is computed", value->name()));
      has_value = reads_tensor = true;
      constant = constant && is_constant[found->second];
      last_use[found->second] = steps.size();
    });
    const c10::TypePtr type = schema ? schema->arguments()[i].type() : c10::AnyType::get();
    if (has_value) {
      Patch patch{static_cast<uint32_t>(i), 0, argument.is_list(), true};
      if (!patch.is_list) {
        patch.slot = slot_of.at(argument.value());
        patch.needs_fitting = argument.value()->kind() != ValueKind::kTensor;
      }
      step.patches.push_back(patch);
      step.stack.emplace_back();
    } else {
      try {
        step.stack.push_back(box(argument, type, none));
      } catch (const Error& error) {
        throw error.within(describe(node));
      }
    }
  }
  step.is_constant = constant && reads_tensor;
  if (!step.is_constant) {
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](Value* value) {
        const Slot slot = slot_of.at(value);
        is_cached[slot] = is_constant[slot] && !value->is_named_tensor();
      });
    }
  }
  for (const Value* output : node.outputs()) {
    step.outputs.push_back(add(output));
    is_constant.back() = step.is_constant;
    last_use[step.outputs.back()] = steps.size();
  }
  steps.push_back(std::move(step));
}

void Interpreter::Plan::find_roots() {
  std::unordered_set<const Value*> seen;
  for (const Step& step : steps) {
    if (!step.is_constant) continue;
    for (const Argument& argument : step.node->arguments()) {
      argument.each_value([&](Value* value) {
        if (!value->is_named_tensor() || !seen.insert(value).second) return;
        roots.push_back({model->find_tensor(value->name()), {}, -1});
      });
    }
  }
}

bool Interpreter::Plan::cache_is_valid() const {
  return std::all_of(roots.begin(), roots.end(), [](const Root& root) {
    const at::Tensor& now = root.source->tensor;
    return root.tensor.defined() && now.is_same(root.tensor) && !now.is_inference() &&
           now._version() == root.version;
  });
}

void Interpreter::Plan::load_tensors() {
  for (const auto& [source, slot] : tensors) {
    if (!source->tensor.defined()) {
      throw Error(
          ErrorCode::kRunFailed,
          fmt::format("the values of tensor `{}` are not known, only their digest", source->name),
          {}, "supply them before the model runs");
    }
    slots[slot] = source->tensor;
  }
}

void Interpreter::Plan::load_inputs(const std::vector<at::Tensor>& given) {
  if (given.size() != inputs.size()) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("the model takes {} inputs, {} were given",
                                                         inputs.size(), given.size()));
  }
  for (size_t i = 0; i < given.size(); ++i) {
    switch (value_of[inputs[i]]->kind()) {
      case ValueKind::kTensor:
        slots[inputs[i]] = given[i];
        break;
      case ValueKind::kInt:
        slots[inputs[i]] = given[i].item().toLong();
        break;
      case ValueKind::kFloat:
        slots[inputs[i]] = given[i].item().toDouble();
        break;
      case ValueKind::kBool:
        slots[inputs[i]] = given[i].item().toBool();
        break;
    }
  }
}

void Interpreter::Plan::call(Step& step) {
  std::vector<IValue> stack;
  stack.reserve(std::max(step.stack.size(), step.outputs.size()));
  stack.insert(stack.end(), step.stack.begin(), step.stack.end());
  for (const Patch& patch : step.patches) {
    if (!patch.is_list && !patch.needs_fitting) {
      stack[patch.argument] = slots[patch.slot];
      continue;
    }
    const c10::FunctionSchema* schema = step.node->schema();
    const c10::TypePtr type =
        schema ? schema->arguments()[patch.argument].type() : c10::AnyType::get();
    stack[patch.argument] =
        box(step.node->arguments()[patch.argument], type,
            [this](const Value* value) -> const IValue& { return lookup(value); });
  }
  if (!step.handle) {
    if (!is_scalar_op(step.node->op())) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("this process has no operator `{}`", step.node->op()),
                  describe(*step.node), "load the library that defines it");
    }
    slots[step.outputs.at(0)] = apply_scalar_op(step.node->op(), stack);
    return;
  }
  // The operands' shapes are gone from the stack once the operator has thrown.
  try {
    if (step.is_recurrent) check_recurrent(*step.node, stack);
    step.handle->callBoxed(stack);
  } catch (const c10::Error& error) {
    std::vector<IValue> operands = step.stack;
    for (const Patch& patch : step.patches) {
      if (!patch.is_list) operands[patch.argument] = slots[patch.slot];
    }
    throw Error(ErrorCode::kRunFailed,
                fmt::format("{} failed: {} [{}]", step.node->op(), error.what_without_backtrace(),
                            shapes_of(operands, *step.node)),
                describe(*step.node));
  }
  store_outputs(step, stack);
}

void Interpreter::Plan::store_outputs(const Step& step, std::vector<IValue>& stack) {
  if (!step.returns_list) {
    const size_t count = std::min(stack.size(), step.outputs.size());
    for (size_t i = 0; i < count; ++i) slots[step.outputs[i]] = std::move(stack[i]);
    return;
  }
  size_t next = 0;
  for (IValue& returned : stack) {
    if (!returned.isList()) {
      if (next < step.outputs.size()) slots[step.outputs[next++]] = std::move(returned);
      continue;
    }
    for (const IValue& element : returned.toListRef()) {
      if (next < step.outputs.size()) slots[step.outputs[next++]] = element;
    }
  }
  if (next != step.outputs.size()) {
    throw Error(ErrorCode::kRunFailed,
                fmt::format("{} returned {} tensors, the graph expects {}", step.node->op(), next,
                            step.outputs.size()),
                describe(*step.node));
  }
}

void Interpreter::Plan::run_steps(const Observer& observer, bool use_cache) {
  const bool cached = use_cache && !cache.empty() && cache_is_valid();
  if (use_cache && !cached) cache.clear();
  for (Step& step : steps) {
    if (step.is_constant && cached) {
      for (const Slot slot : step.outputs) {
        if (is_cached[slot]) slots[slot] = cache.at(slot);
      }
    } else {
      call(step);
      for (const Slot slot : step.outputs) {
        if (use_cache && is_cached[slot]) cache[slot] = slots[slot];
      }
    }
    if (observer) {
      for (const Slot slot : step.outputs) {
        if (!slots[slot].isNone()) observer(*value_of[slot], slots[slot]);
      }
    }
    for (const Slot slot : step.free_after) slots[slot] = IValue();
  }
  if (!use_cache || cached) return;
  for (Root& root : roots) {
    root.tensor = root.source->tensor;
    root.version = root.tensor.is_inference() ? -1 : root.tensor._version();
  }
}

Interpreter::Interpreter(const Model& model) : plan_(std::make_unique<Plan>()) {
  plan_->model = &model;
  plan_->version = model.graph().version();
  plan_->compile();
}

Interpreter::~Interpreter() = default;

uint64_t Interpreter::version() const { return plan_->version; }

std::vector<at::Tensor> Interpreter::run(const std::vector<at::Tensor>& inputs) {
  return run(inputs, nullptr);
}

std::vector<at::Tensor> Interpreter::run(const std::vector<at::Tensor>& inputs,
                                         const Observer& observer, bool keep_constants) {
  Plan& plan = *plan_;
  // Whatever happens, no tensor stays alive in the slots.
  struct Clear {
    std::vector<IValue>& slots;
    ~Clear() { std::fill(slots.begin(), slots.end(), IValue()); }
  } clear{plan.slots};
  plan.load_tensors();
  plan.load_inputs(inputs);
  if (observer) {
    for (const Slot slot : plan.inputs) observer(*plan.value_of[slot], plan.slots[slot]);
  }
  plan.run_steps(observer, keep_constants && !at::GradMode::is_enabled());

  const Graph& graph = plan.model->graph();
  std::vector<at::Tensor> outputs;
  for (const Output& output : graph.outputs()) {
    if (!output.value.is_value()) continue;
    const IValue& value = plan.lookup(output.value.value());
    outputs.push_back(value.isTensor() ? value.toTensor() : at::scalar_tensor(value.toScalar()));
  }
  if (!graph.updates().empty()) {
    const at::NoGradGuard no_grad;
    for (const Output& update : graph.updates()) {
      plan.model->tensor(update.name).copy_(plan.lookup(update.value.value()).toTensor());
    }
  }
  return outputs;
}

at::Tensor evaluate(const Model& model, const Value* value) {
  std::unordered_map<const Value*, IValue> known;
  // Named tensors are leaves; a node runs once all that it reads is known.
  std::vector<const Value*> pending{value};
  while (!pending.empty()) {
    const Value* next = pending.back();
    const Node* node = next->producer();
    if (known.contains(next)) {
      pending.pop_back();
    } else if (next->is_named_tensor()) {
      known[next] = model.tensor(next->name());
    } else if (node == nullptr) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("`{}` depends on the input `{}`", value->name(), next->name()));
    } else {
      const size_t before = pending.size();
      for (const Argument& argument : node->arguments()) {
        argument.each_value([&](Value* read) {
          if (!known.contains(read)) pending.push_back(read);
        });
      }
      if (pending.size() == before) run_node(*node, known);
    }
  }
  return known.at(value).toTensor();
}

}  // namespace compress
