// A model at fixed input sizes, stripped of what inference does not need.

#include "compress/engine/specialize.h"

#include "compress/error.h"
#include "compress/graph/interpreter.h"

#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <set>
#include <string>
#include <unordered_map>

namespace compress::engine {
namespace {

using Scalars = std::unordered_map<const Value*, Argument>;

// Whether the sizes of the inputs decide a scalar that `node` computes.
bool computes_on_sizes(const Node& node) {
  static const std::set<std::string> kOperators = {
      "aten::sym_size.int",       "aten::sym_numel", "aten::sym_stride.int",
      "aten::sym_storage_offset", "aten::size.int",  "aten::numel"};
  return node.schema() == nullptr || kOperators.contains(node.op());
}

Argument constant_of(const c10::IValue& content) {
  if (content.isBool()) return content.toBool();
  if (content.isInt()) return content.toInt();
  return content.toDouble();
}

// Runs the model once; notes types of tensors and values of scalars.
Scalars measure(Model& model, const std::vector<at::Tensor>& inputs) {
  const at::NoGradGuard no_grad;
  Scalars scalars;
  const auto note = [&](const Value& value, const c10::IValue& content) {
    Value& noted = const_cast<Value&>(value);
    if (content.isTensor() && content.toTensor().defined()) {
      const at::Tensor& tensor = content.toTensor();
      noted.type.dtype = tensor.scalar_type();
      noted.type.sizes = std::vector<Dim>(tensor.sizes().begin(), tensor.sizes().end());
    } else if (content.isInt() || content.isDouble() || content.isBool()) {
      scalars[&value] = constant_of(content);
    }
  };
  model.interpreter().run(inputs, note, /*keep_constants=*/false);
  return scalars;
}

Argument with_constants(const Argument& argument, const Scalars& scalars) {
  if (const Value* value = argument.value()) {
    const auto found = scalars.find(value);
    return found == scalars.end() ? argument : found->second;
  }
  if (!argument.is_list()) return argument;
  Argument::List list;
  for (const Argument& element : argument.list()) list.push_back(with_constants(element, scalars));
  return list;
}

void put_constants(Model& model, const Scalars& scalars) {
  for (Node& node : model.graph().nodes()) {
    const Value* output = node.outputs().empty() ? nullptr : node.output();
    if (output && output->kind() != ValueKind::kTensor && !computes_on_sizes(node)) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{} computes a number from data, which a plan cannot fix", node.op()),
                  output->name(), "run the model without the engine");
    }
    for (size_t i = 0; i < node.arguments().size(); ++i) {
      Argument fixed = with_constants(node.arguments()[i], scalars);
      if (!(fixed == node.arguments()[i])) model.graph().set_argument(&node, i, std::move(fixed));
    }
  }
}

// Whether the node returns its input as it is.
bool is_identity(const Node& node) {
  static const std::set<std::string> kCopies = {
      "aten::dropout",  "aten::feature_dropout", "aten::alpha_dropout", "aten::contiguous",
      "aten::clone",    "aten::detach",          "aten::alias",         "aten::lift_fresh_copy",
      "aten::_to_copy", "aten::to.dtype",        "aten::native_dropout"};
  if (!kCopies.contains(node.op())) return false;
  const Value* input = node.arguments()[0].value();
  return input != nullptr && input->type.dtype == node.output()->type.dtype;
}

// Buffers that count runs (`num_batches_tracked`) stay as they are; those that a later run reads
// cannot.
void drop_counters(Model& model) {
  std::vector<std::string> updated;
  for (const Output& update : model.graph().updates()) updated.push_back(update.name);
  model.graph().set_updates({});
  model.remove_dead();
  for (const std::string& name : updated) {
    if (model.find_tensor(name) == nullptr) continue;
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("the model writes the buffer `{}` in each run and reads it again", name), {},
        "run the model without the engine");
  }
}

// A plan's inputs and outputs are tensors: a number has no place in memory there.
void refuse_numbers(const Graph& graph) {
  const auto refuse = [](const Value& value, const char* verb) {
    if (value.kind() == ValueKind::kTensor) return;
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("the model {} the number `{}`; a plan has tensors only", verb, value.name()),
        {}, "run the model without the engine");
  };
  for (const Value* input : graph.inputs()) refuse(*input, "takes");
  for (const Output& output : graph.outputs()) {
    if (output.value.is_value()) refuse(*output.value.value(), "returns");
  }
}

// A plan's values have strides of their own: views become reshapes, which copy where they must.
void free_from_strides(Model& model) {
  for (Node& node : model.graph().nodes()) {
    if (node.op() == "aten::view" || node.op() == "aten::_unsafe_view") {
      model.graph().set_op(&node, "aten::reshape");
    }
    if (node.op() == "aten::as_strided") {
      throw Error(ErrorCode::kUnsupported,
                  "aten::as_strided reads memory by strides, which a plan chooses anew",
                  node.output()->name(), "run the model without the engine");
    }
  }
}

}  // namespace

Model specialize(const Model& model, const std::vector<at::Tensor>& inputs) {
  Model fixed = model.clone(/*deep=*/false);
  fixed.eval();
  refuse_numbers(fixed.graph());
  drop_counters(fixed);
  put_constants(fixed, measure(fixed, inputs));
  free_from_strides(fixed);
  for (Node& node : fixed.graph().nodes()) {
    if (is_identity(node)) {
      fixed.graph().replace_uses(node.output(), node.arguments()[0].value());
    }
  }
  fixed.remove_dead();
  return fixed;
}

}  // namespace compress::engine
